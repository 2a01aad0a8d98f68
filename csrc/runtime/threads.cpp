#include "runtime/threads.h"

#include <pthread.h>

#include <algorithm>
#include <utility>

#include "runtime/exclusive.h"
#include "runtime/float_environment.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace outrider {
namespace {

// Spins before yielding (about 50 us): longer than any barrier on an idle machine, short enough not to starve another
// thread on the same core.
constexpr int kSpins = 2000;
// Yields before sleeping: a decode loop starts its next pass before they are used up.
constexpr int kYields = 200;

void pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Number of forks between the first process and this one.
std::atomic<uint32_t> forks{0};
[[maybe_unused]] const int registered = pthread_atfork(nullptr, nullptr, [] { forks.fetch_add(1); });

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
  job_number_.notify_all();
  for (auto& w : workers_) w.join();
}

void ThreadPool::restart_after_fork() {
  if (forks_ == forks) return;
  const int count = size() - 1;
  leak(workers_);
  workers_.clear();
  job_number_ = 0, background_threads_ = 0, arrived_ = 0, phase_ = 0;
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
  start(reproducible, true);
  reproducible(0);
  barrier();
}

void ThreadPool::run_in_background(std::function<void(int, const std::atomic<bool>&)> work) {
  const Exclusive lock(in_use_, "the thread pool");
  restart_after_fork();
  cancel_background();
  if (workers_.empty()) return;
  cancelled_ = false;
  background_threads_ = static_cast<int>(workers_.size());
  background_ = [this, work = std::move(work)](int thread) {
    work(thread, cancelled_);
    background_threads_.fetch_sub(1, std::memory_order_release);
  };
  start(background_, false);
}

void ThreadPool::start(const std::function<void(int)>& job, bool joined) {
  job_ = &job;
  joined_ = joined;
  job_number_.fetch_add(1, std::memory_order_release);
  job_number_.notify_all();
}

void ThreadPool::cancel_background() {
  cancelled_ = true;
  for (int i = 0; background_threads_.load(std::memory_order_acquire) > 0; ++i) {
    if (i < kSpins) pause();
    else std::this_thread::yield();
  }
}

void ThreadPool::worker_loop(int index) {
  for (uint32_t last_job = 0;;) {
    for (int i = 0; job_number_.load(std::memory_order_acquire) == last_job; ++i) {
      if (i < kSpins) pause();
      else if (i < kSpins + kYields) std::this_thread::yield();
      else job_number_.wait(last_job, std::memory_order_acquire);
    }
    ++last_job;
    if (stopping_) return;
    const bool joined = joined_;
    (*job_)(index);
    if (joined) barrier();
  }
}

void ThreadPool::barrier() {
  const uint32_t phase = phase_.load(std::memory_order_relaxed);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size()) {
    arrived_.store(0, std::memory_order_relaxed);
    phase_.store(phase + 1, std::memory_order_release);
    return;
  }
  for (int i = 0; phase_.load(std::memory_order_acquire) == phase; ++i) {
    if (i < kSpins) pause();
    else std::this_thread::yield();
  }
}

void ThreadPool::parallel_for(size_t count, size_t chunk, const std::function<void(size_t, size_t)>& work) {
  std::atomic<size_t> next{0};
  run([&](int) {
    for (size_t begin; (begin = next.fetch_add(chunk)) < count;) work(begin, std::min(begin + chunk, count));
  });
}

}  // namespace outrider
