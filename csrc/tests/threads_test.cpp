// ThreadPool under repetition: every thread runs every job once, barriers hold, shared work is done exactly once. And Shares:
// everything is done once, whoever does it.
#include "program/shares.h"
#include "runtime/threads.h"

#include <sys/wait.h>
#include <unistd.h>

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
    pool.meanwhile([](int, const std::atomic<bool>& enough) {
      while (!enough) std::this_thread::yield();
    });
  }  // and a pool can be dropped with it
}

void test_shares() {
  constexpr size_t kCounts[] = {0, 1, 2, 3, 5, 31, 32, 33, 1000}, kCalls = std::size(kCounts);
  for (int threads = 1; threads <= 5; ++threads)
    for (size_t unit : {1, 2, 16}) {
      ThreadPool pool(threads);
      Shares shares(threads, kCalls);
      std::vector<std::atomic<int>> times(1000 * kCalls);
      std::atomic<int> astray{0};
      constexpr int kPasses = 60;
      for (int pass = 0; pass < kPasses; ++pass)
        pool.run([&](int thread) {
          shares.start(thread, pass % 2);
          for (size_t call = 0; call < kCalls; ++call) {   // no barriers: others may still be at an earlier call
            if (pass % 5 == 4 && call % 3 == 0) continue;  // one that this pass has nothing for
            shares.divide(thread, call, pass % 2, kCounts[call], unit, [&](size_t begin, size_t end) {
              astray += begin % unit != 0 || begin >= end || end > kCounts[call];
              for (size_t i = begin; i < end; ++i) ++times[call * 1000 + i];
            });
          }
        });
      bool once = astray == 0;
      for (size_t call = 0; call < kCalls; ++call)
        for (size_t i = 0; i < 1000; ++i)
          once &= times[call * 1000 + i] == (i >= kCounts[call] ? 0 : call % 3 ? kPasses : kPasses - kPasses / 5);
      CHECK(once, note("shares", "threads", threads, "unit", unit));
    }

  // A thread that is held up leaves what it has not begun to the others, and what they have done it does not do again.
  ThreadPool pool(3);
  Shares shares(3, 1);
  std::atomic<int> by_others{0}, by_slow{0};
  pool.run([&](int thread) {
    shares.start(thread, false);
    shares.divide(thread, 0, false, 96, 1, [&](size_t begin, size_t end) {
      const int done = static_cast<int>(end - begin);
      if (thread == 1) {
        by_slow += done;
        while (by_others < 96 - by_slow) std::this_thread::yield();  // for ever, if they left it
      } else {
        while (by_slow == 0) std::this_thread::yield();
        by_others += done;
      }
    });
  });
  CHECK(by_others + by_slow == 96 && by_slow == 16, "half of its own share, once begun, is a slow thread's");
}

// A forked child has none of the threads: its first job starts new ones. The parent's go on.
void test_fork() {
  for (bool busy : {false, true}) {
    ThreadPool pool(3);
    pool.run([](int) {});
    if (busy)
      pool.meanwhile([](int, const std::atomic<bool>& enough) {
        while (!enough) std::this_thread::yield();
      });
    const pid_t child = fork();
    if (child == 0) {
      alarm(20);  // rather than hang for ever
      std::atomic<int> ran{0};
      for (int i = 0; i < 3; ++i) pool.run([&](int) { ++ran; });
      pool.meanwhile([](int, const std::atomic<bool>& enough) {
        while (!enough) std::this_thread::yield();
      });
      pool.run([&](int) { ++ran; });
      _exit(ran == 12 ? 0 : 1);
    }
    int status = -1;
    waitpid(child, &status, 0);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, note("fork", "busy", busy));
    std::atomic<int> ran{0};
    pool.run([&](int) { ++ran; });
    CHECK(ran == 3, note("the parent after a fork", "busy", busy));
  }
}

}  // namespace

void test_threads() {
  if (can_fork) test_fork();
  test_shares();
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
