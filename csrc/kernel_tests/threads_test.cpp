// ThreadPool under repetition: every thread runs every job once, barriers hold, shared work is done exactly once.
#include "../threads.h"

#include <atomic>
#include <chrono>

#include "check.h"

namespace outrider::test {
namespace {

// Work of meanwhile() is begun by every other thread, is over before the next job, and never holds one up.
void test_meanwhile() {
  for (int threads = 1; threads <= 4; ++threads) {
    ThreadPool pool(threads);
    std::vector<int> begun(threads, 0), ended(threads, 0);  // written without atomics: the next job comes after
    bool over = true;
    int times = 0;
    for (int repeat = 0; repeat < 100; ++repeat) {
      for (int again = repeat % 3; again >= 0; --again, ++times)
        pool.meanwhile([&](int thread, const std::atomic<bool>& enough) {
          ++begun[thread];
          while (!enough) std::this_thread::yield();  // until it is told: a job that did not tell would wait for ever
          ++ended[thread];
        });
      if (repeat % 50 == 49) std::this_thread::sleep_for(std::chrono::milliseconds(20));
      pool.run([&](int) { over &= begun == ended; });
    }
    begun[0] += times;  // the caller's own thread has better things to do
    for (int b : begun) CHECK(b == times, note("meanwhile", "threads", threads));
    CHECK(over, note("meanwhile is over", "threads", threads));
    pool.meanwhile([](int, const std::atomic<bool>& enough) { while (!enough) std::this_thread::yield(); });
  }  // and a pool can be dropped with it
}

}  // namespace

void test_threads() {
  for (int threads = 1; threads <= 4; ++threads) {
    ThreadPool pool(threads);
    CHECK(pool.size() == threads, "");
    bool once = true, ordered = true, shared = true;
    for (int repeat = 0; repeat < 150; ++repeat) {
      if (repeat % 50 == 49) std::this_thread::sleep_for(std::chrono::milliseconds(20));  // until the threads sleep

      std::vector<int> runs(threads, 0);  // written without atomics: run() itself must order the writes before its return
      pool.run([&](int thread) { ++runs[thread]; });
      for (int r : runs) once &= r == 1;

      // Phases: what is written before a barrier is seen behind it by all.
      std::vector<int> slots(threads, -1);
      std::atomic<int> wrong{0};
      pool.run([&](int thread) {
        for (int phase = 0; phase < 5; ++phase) {
          slots[thread] = phase;
          pool.barrier();
          for (int seen : slots) wrong += seen != phase;
          pool.barrier();
        }
      });
      ordered &= wrong == 0;

      const size_t counts[] = {0, 1, 7, 64, 257}, count = counts[repeat % 5], piece = 1 + repeat % 9;
      std::vector<int> done(count, 0);
      std::atomic<int> misshapen{0};
      pool.share(count, piece, [&](size_t begin, size_t end) {
        if (end - begin > piece || begin >= end) ++misshapen;
        for (size_t i = begin; i < end; ++i) ++done[i];
      });
      for (int d : done) shared &= d == 1;
      shared &= misshapen == 0;
    }
    CHECK(once, note("run", "threads", threads));
    CHECK(ordered, note("barrier", "threads", threads));
    CHECK(shared, note("share", "threads", threads));
  }
  for (int repeat = 0; repeat < 50; ++repeat) {  // made and dropped at once, with and without a job
    ThreadPool pool(1 + repeat % 4);
    if (repeat % 3 == 0) pool.run([](int) {});
  }
  CHECK(true, "pools come and go");
  test_meanwhile();
}

}  // namespace outrider::test
