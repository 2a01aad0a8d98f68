// ThreadPool under repetition: every thread runs every job once, and parallel_for covers its range exactly once.
#include "runtime/threads.h"

#include <atomic>
#include <chrono>

#include "runtime/waiting.h"
#include "check.h"

namespace outrider::test {
namespace {

// Background work starts on every thread but the caller's, and is cancelled and finished before the next job.
void test_background() {
  for (int threads = 1; threads <= 4; ++threads) {
    ThreadPool pool(threads);
    std::vector<int> started(threads, 0), finished(threads, 0);  // without atomics: the next job must order the writes
    std::atomic<bool> ordered{true};
    int times = 0;
    for (int repeat = 0; repeat < 100; ++repeat) {
      for (int again = repeat % 3; again >= 0; --again, ++times)
        pool.run_in_background([&](int thread, const std::atomic<bool>& cancelled) {
          ++started[thread];
          while (!cancelled) std::this_thread::yield();  // never ends if the next job does not cancel it
          ++finished[thread];
        });
      if (repeat % 50 == 49) std::this_thread::sleep_for(std::chrono::milliseconds(20));
      pool.run([&](int) {
        if (started != finished) ordered = false;
      });
    }
    started[0] += times;  // the caller's thread does not take part
    for (int s : started) CHECK(s == times, note("background", "threads", threads));
    CHECK(ordered, note("background work is finished", "threads", threads));
    pool.run_in_background([](int, const std::atomic<bool>& cancelled) {
      while (!cancelled) std::this_thread::yield();
    });
  }  // destroys a pool with background work
}

// A value that threads raise in any order never falls.
void test_raise() {
  ThreadPool pool(4);
  std::atomic<uint32_t> value{0};
  std::atomic<bool> fell{false};
  pool.run([&](int thread) {
    for (uint32_t step = 0; step < 20000; ++step) {
      const uint32_t least = thread % 2 ? step : step / 2;
      raise(value, least);
      if (value.load(std::memory_order_relaxed) < least) fell = true;
    }
  });
  CHECK(value == 19999 && !fell, "");
}

}  // namespace

void test_threads() {
  for (int threads = 1; threads <= 4; ++threads) {
    ThreadPool pool(threads);
    CHECK(pool.size() == threads, "");
    bool once = true, covered = true;
    for (int repeat = 0; repeat < 150; ++repeat) {
      if (repeat % 50 == 49) std::this_thread::sleep_for(std::chrono::milliseconds(20));  // so that the threads fall asleep

      std::vector<int> runs(threads, 0);  // written without atomics: run() itself must order the writes before its return
      pool.run([&](int thread) { ++runs[thread]; });
      for (int r : runs) once &= r == 1;

      const size_t counts[] = {0, 1, 7, 64, 257}, count = counts[repeat % 5], chunk = 1 + repeat % 9;
      std::vector<int> done(count, 0);
      std::atomic<int> invalid{0};
      pool.parallel_for(count, chunk, [&](size_t begin, size_t end) {
        if (end - begin > chunk || begin >= end) ++invalid;
        for (size_t i = begin; i < end; ++i) ++done[i];
      });
      for (int d : done) covered &= d == 1;
      covered &= invalid == 0;
    }
    CHECK(once, note("run", "threads", threads));
    CHECK(covered, note("parallel_for", "threads", threads));
  }
  for (int repeat = 0; repeat < 50; ++repeat) {  // created and destroyed, with and without a job
    ThreadPool pool(1 + repeat % 4);
    if (repeat % 3 == 0) pool.run([](int) {});
  }
  test_background();
  test_raise();
}

}  // namespace outrider::test
