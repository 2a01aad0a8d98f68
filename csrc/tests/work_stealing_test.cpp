// WorkStealing: every piece is processed exactly once, by whichever thread.
#include "program/work_stealing.h"

#include <atomic>
#include <thread>

#include "runtime/threads.h"
#include "check.h"

namespace outrider::test {
namespace {

// Many calls and passes: every element of every range is processed once.
void test_ranges() {
  constexpr size_t kCounts[] = {0, 1, 2, 3, 5, 31, 32, 33, 1000}, kCalls = std::size(kCounts);
  for (int threads = 1; threads <= 5; ++threads)
    for (size_t unit : {1, 2, 16}) {
      ThreadPool pool(threads);
      WorkStealing work(threads, kCalls);
      std::vector<std::atomic<int>> times(1000 * kCalls);
      std::atomic<int> invalid{0};
      constexpr int kPasses = 60;
      for (int pass = 0; pass < kPasses; ++pass)
        pool.run([&](int thread) {
          work.start(thread, pass % 2);
          for (size_t call = 0; call < kCalls; ++call) {   // no barriers: other threads may still run an earlier call
            if (pass % 5 == 4 && call % 3 == 0) continue;  // a call that this pass skips
            work.parallel_for(thread, call, pass % 2, kCounts[call], unit, [&](size_t begin, size_t end) {
              invalid += begin % unit != 0 || begin >= end || end > kCounts[call];
              for (size_t i = begin; i < end; ++i) ++times[call * 1000 + i];
            });
          }
        });
      bool once = invalid == 0;
      for (size_t call = 0; call < kCalls; ++call)
        for (size_t i = 0; i < 1000; ++i)
          once &= times[call * 1000 + i] == (i >= kCounts[call] ? 0 : call % 3 ? kPasses : kPasses - kPasses / 5);
      CHECK(once, note("work stealing", "threads", threads, "unit", unit));
    }
}

// A thread that is delayed computes only the piece that it has started; the others steal the rest of its range.
void test_stealing() {
  ThreadPool pool(3);
  WorkStealing work(3, 1);
  std::atomic<int> by_others{0}, by_delayed{0};
  pool.run([&](int thread) {
    work.start(thread, false);
    work.parallel_for(thread, 0, false, 96, 1, [&](size_t begin, size_t end) {
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

}  // namespace

void test_work_stealing() {
  test_ranges();
  test_stealing();
}

}  // namespace outrider::test
