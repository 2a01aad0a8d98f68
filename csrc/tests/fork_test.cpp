// ThreadPool in a process that forks. Windows has no fork.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>

#include "check.h"
#include "runtime/threads.h"

namespace outrider::test {

// fork() copies no threads: the first job of a child starts new ones; the parent's keep running.
void test_fork() {
  for (bool busy : {false, true}) {
    ThreadPool pool(3);
    pool.run([](int) {});
    if (busy)
      pool.run_in_background([](int, const std::atomic<bool>& cancelled) {
        while (!cancelled) std::this_thread::yield();
      });
    const pid_t child = fork();
    if (child == 0) {
      alarm(20);  // in case the child hangs
      std::atomic<int> ran{0};
      for (int i = 0; i < 3; ++i) pool.run([&](int) { ++ran; });
      pool.run_in_background([](int, const std::atomic<bool>& cancelled) {
        while (!cancelled) std::this_thread::yield();
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

}  // namespace outrider::test
