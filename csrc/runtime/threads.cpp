#include "runtime/threads.h"

#include <algorithm>
#include <utility>

#include "runtime/exclusive.h"
#include "runtime/float_environment.h"
#include "runtime/waiting.h"
#include "system/system.h"

namespace outrider {
namespace {

// Threads wait this long for the next job before they sleep: the next pass of a decode loop starts within it. The caller waits
// this long for the last thread.
constexpr std::chrono::microseconds kIdle{200}, kLast{50};

// Number of forks between the first process and this one.
std::atomic<uint32_t> forks{0};
[[maybe_unused]] const bool registered = [] {
  system::call_in_forked_children([] { forks.fetch_add(1); });
  return true;
}();

// Leaks the handles of threads that exist in the parent only: joining, detaching or destroying them is undefined.
void leak(std::vector<std::thread>& threads) { new std::vector<std::thread>(std::move(threads)); }

}  // namespace

ThreadPool::ThreadPool(int threads) { start_threads(threads - 1); }

ThreadPool::~ThreadPool() {
  if (forks_ != forks) {
    leak(workers_);
    return;
  }
  cancel_background();
  stop_threads();
}

void ThreadPool::start_threads(int count) {
  forks_ = forks;
  try {
    for (int i = 1; i <= count; ++i) workers_.emplace_back([this, i] { worker_loop(i); });
  } catch (...) {  // std::system_error: the thread limit is reached
    stop_threads();
    throw;
  }
}

void ThreadPool::stop_threads() {
  stopping_ = true;
  job_number_.fetch_add(1);
  wake_all(job_number_);
  for (auto& w : workers_) w.join();
}

void ThreadPool::restart_after_fork() {
  if (forks_ == forks) return;
  const int count = size() - 1;
  leak(workers_);
  workers_.clear();
  job_number_ = 0, running_ = 0;
  start_threads(count);
}

void ThreadPool::run(const std::function<void(int)>& job) {
  const Exclusive lock(in_use_, "the thread pool");
  restart_after_fork();
  cancel_background();
  const std::function<void(int)> reproducible = [&job](int thread) {
    const DefaultFloatEnvironment environment;
    job(thread);
  };
  start(reproducible);
  reproducible(0);
  wait_for_all();
}

void ThreadPool::run_in_background(std::function<void(int, const std::atomic<bool>&)> work) {
  const Exclusive lock(in_use_, "the thread pool");
  restart_after_fork();
  cancel_background();
  if (workers_.empty()) return;
  cancelled_ = false;
  background_ = [this, work = std::move(work)](int thread) { work(thread, cancelled_); };
  start(background_);
}

void ThreadPool::start(const std::function<void(int)>& job) {
  job_ = &job;
  running_.store(size() - 1, std::memory_order_relaxed);
  job_number_.fetch_add(1);
  wake_all(job_number_);
}

void ThreadPool::wait_for_all() {
  wait_until(running_, kLast, [](int running) { return running == 0; });
}

void ThreadPool::cancel_background() {
  cancelled_ = true;
  wait_for_all();
}

void ThreadPool::worker_loop(int index) {
  for (uint32_t last_job = 0;; ++last_job) {
    wait_until(job_number_, kIdle, [&](uint32_t job) { return job != last_job; });
    if (stopping_) return;
    (*job_)(index);
    if (running_.fetch_sub(1) == 1) wake_all(running_);
  }
}

void ThreadPool::parallel_for(size_t count, size_t chunk, const std::function<void(size_t, size_t)>& work) {
  std::atomic<size_t> next{0};
  run([&](int) {
    for (size_t begin; (begin = next.fetch_add(chunk)) < count;) work(begin, std::min(begin + chunk, count));
  });
}

}  // namespace outrider
