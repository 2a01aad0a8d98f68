// A thread pool. A job runs on all threads at once, the caller's included. How the threads of a job share its work is the job's:
// see WorkStealing. Threads that wait for a job, or for its end, spin a little and then sleep.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <thread>
#include <vector>

namespace outrider {

// fork() copies no threads: in a forked child the first job starts new ones. Do not fork while a job runs.
class ThreadPool {
 public:
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return static_cast<int>(workers_.size()) + 1; }

  // Runs job(thread index) on every thread in the default floating-point environment; returns when all are done. Throws
  // std::runtime_error if another thread's job is running.
  void run(const std::function<void(int)>& job);

  // Starts work(thread index, cancelled) on every thread but the caller's, and returns at once. The next job sets `cancelled`
  // and waits for the work to return, so it must poll. Does nothing in a pool of one thread.
  void run_in_background(std::function<void(int, const std::atomic<bool>&)> work);

  // Splits [0, count) into chunks of `chunk` that threads take as they become free. Must not be called inside a job.
  void parallel_for(size_t count, size_t chunk, const std::function<void(size_t, size_t)>& work);

 private:
  void worker_loop(int index);
  void start(const std::function<void(int)>& job);
  void wait_for_all();
  void cancel_background();
  void start_threads(int count);
  void stop_threads();
  void restart_after_fork();

  std::vector<std::thread> workers_;
  uint32_t forks_;  // the process's fork count when the threads were started
  std::atomic_flag in_use_;
  const std::function<void(int)>* job_ = nullptr;
  std::function<void(int)> background_;
  std::atomic<uint32_t> job_number_{0};
  std::atomic<bool> stopping_{false}, cancelled_{false};
  alignas(64) std::atomic<int> running_{0};  // threads but the caller's that have not returned from the job
};

}  // namespace outrider
