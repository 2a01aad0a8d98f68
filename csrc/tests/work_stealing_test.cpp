// WorkStealing: every piece is processed exactly once, by whichever thread, and before any thread goes on.
#include "program/work_stealing.h"

#include <atomic>
#include <thread>

#include "runtime/threads.h"
#include "check.h"

namespace outrider::test {
namespace {

// Many calls and passes: every element of every range is processed once, and before any thread begins the next call.
void test_ranges(int threads, int passes) {
  constexpr size_t kCounts[] = {0, 1, 2, 3, 5, 31, 32, 33, 1000}, kCalls = std::size(kCounts);
  for (size_t unit : {1, 2, 16}) {
    ThreadPool pool(threads);
    WorkStealing work(threads, kCalls);
    std::vector<int> times(1000 * kCalls, 0);  // without atomics: a call must order the writes of those before it
    std::atomic<int> invalid{0}, early{0};
    for (int pass = 0; pass < passes; ++pass) {
      work.begin();
      pool.run([&](int thread) {
        if ((thread + pass) % 7 == 6) std::this_thread::sleep_for(std::chrono::microseconds(200));  // comes late
        work.join(thread);
        size_t before = kCalls;
        for (size_t call = 0; call < kCalls; ++call) {
          if (pass % 5 == 4 && call % 3 == 0) continue;  // a call that this pass skips
          work.parallel_for(thread, call, kCounts[call], unit, [&](size_t begin, size_t end) {
            invalid += begin % unit != 0 || begin >= end || end > kCounts[call];
            const int* done = times.data() + before * 1000;
            for (size_t i = 0; before < kCalls && i < kCounts[before]; ++i) early += done[i] != done[0];
            for (size_t i = begin; i < end; ++i) ++times[call * 1000 + i];
          });
          before = call;
        }
      });
      for (size_t call = 0; call < kCalls; ++call) {
        const size_t units = pass % 5 == 4 && call % 3 == 0 ? 0 : (kCounts[call] + unit - 1) / unit;
        invalid += work.units()[call] != units;
      }
    }
    bool once = invalid == 0;
    for (size_t call = 0; call < kCalls; ++call)
      for (size_t i = 0; i < 1000; ++i)
        once &= times[call * 1000 + i] == (i >= kCounts[call] ? 0 : call % 3 ? passes : passes - passes / 5);
    CHECK(once, note("work stealing", "threads", threads, "unit", unit));
    CHECK(early == 0, note("a call begins when the one before is complete", "threads", threads, "unit", unit));
  }
}

// A thread that is delayed computes only the piece that it has started; the others steal the rest of its range.
void test_stealing() {
  ThreadPool pool(3);
  WorkStealing work(3, 1);
  std::atomic<int> by_others{0}, by_delayed{0};
  work.begin();
  pool.run([&](int thread) {
    work.join(thread);
    work.parallel_for(thread, 0, 96, 1, [&](size_t begin, size_t end) {
      const int done = static_cast<int>(end - begin);
      if (thread == 1) {
        by_delayed += done;
        while (by_others < 96 - by_delayed) std::this_thread::yield();  // never ends if they do not steal
      } else {
        while (by_delayed == 0) std::this_thread::yield();
        by_others += done;
      }
    });
  });
  CHECK(by_others + by_delayed == 96 && by_delayed == 16, "the delayed thread keeps the first piece, half of its range");
}

// Threads that have not come to a call hold up nobody: all calls end while one thread alone computes.
void test_absent_threads() {
  for (int threads : {2, 3, 8, 9, 64}) {
    ThreadPool pool(threads);
    WorkStealing work(threads, 20);
    std::atomic<bool> finished{false};
    size_t by_one = 0;
    work.begin();
    pool.run([&](int thread) {
      while (thread != 0 && !finished) std::this_thread::sleep_for(std::chrono::microseconds(100));
      work.join(thread);
      for (size_t call = 0; call < 20; ++call)
        work.parallel_for(thread, call, 1000, 1, [&](size_t begin, size_t end) { by_one += thread == 0 ? end - begin : 0; });
      finished = true;
    });
    CHECK(by_one == 20 * 1000, note("one thread alone, of", "threads", threads));
  }
}

}  // namespace

void test_work_stealing() {
  for (int threads = 1; threads <= 5; ++threads) test_ranges(threads, 60);
  for (int threads : {8, 9, 17, 64}) test_ranges(threads, 10);
  test_stealing();
  test_absent_threads();
}

}  // namespace outrider::test
