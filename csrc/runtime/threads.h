// One pool of threads. A job runs on all of them at once, the caller's thread included; inside a job the threads meet
// at barriers. Waiting spins first (a barrier inside a pass lasts well under a microsecond), then yields, and between
// jobs sleeps.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <thread>
#include <vector>

namespace outrider {

// A forked child has none of its parent's threads: the pool starts new ones at its first job there. A fork must not fall
// into a job.
class ThreadPool {
 public:
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return static_cast<int>(workers_.size()) + 1; }

  // Runs job(thread index) on every thread, in the default floating-point environment, and returns when all are done. One
  // job at a time: throws std::runtime_error if another thread's is running.
  void run(const std::function<void(int)>& job);

  // Meets all threads of the running job.
  void barrier();

  // Gives the other threads something to do until the next job: work(thread index, enough) on each of them, which has to
  // return soon after `enough` turns true. Does not wait, and runs nothing if there are no others.
  void meanwhile(std::function<void(int, const std::atomic<bool>&)> work);

  // Hands out [0, count) in pieces of `piece` to whichever thread is free. Must not be called inside a job.
  void share(size_t count, size_t piece, const std::function<void(size_t, size_t)>& work);

 private:
  void work(int index);
  void start(const std::function<void(int)>& job, bool joined);
  void end_meanwhile();
  void start_threads(int count);
  void stop_threads();
  void replace_lost_threads();

  std::vector<std::thread> workers_;
  uint32_t forks_;  // of this process before the threads were started
  std::atomic_flag in_use_;
  const std::function<void(int)>* job_ = nullptr;
  bool joined_ = true;  // whether the threads of the job meet at its end
  std::function<void(int)> meanwhile_;
  std::atomic<uint32_t> job_number_{0};
  std::atomic<bool> stopping_{false}, enough_{false};
  alignas(64) std::atomic<int> busy_{0};  // threads that are still at meanwhile_
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<uint32_t> phase_{0};
};

}  // namespace outrider
