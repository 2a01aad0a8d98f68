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

// Spins before yielding (about 50 us): longer than any barrier on an idle machine, short enough not to starve a
// thread that shares this core.
constexpr int kSpins = 2000;
// Yields before sleeping between jobs: a decode loop asks for the next pass within that time.
constexpr int kYields = 200;

void pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Forks between the first process and this one.
std::atomic<uint32_t> forks{0};
[[maybe_unused]] const int counting = pthread_atfork(nullptr, nullptr, [] { forks.fetch_add(1); });

// Abandons threads that exist in the parent alone: to join, detach or destroy them is undefined here.
void abandon(std::vector<std::thread>& threads) { new std::vector<std::thread>(std::move(threads)); }

}  // namespace

ThreadPool::ThreadPool(int threads) { start_threads(threads - 1); }

ThreadPool::~ThreadPool() {
  if (forks_ != forks) {
    abandon(workers_);
    return;
  }
  end_meanwhile();
  stop_threads();
}

void ThreadPool::start_threads(int count) {
  forks_ = forks;
  try {
    for (int i = 1; i <= count; ++i) workers_.emplace_back([this, i] { work(i); });
  } catch (...) {  // the system has no more threads
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

void ThreadPool::replace_lost_threads() {
  if (forks_ == forks) return;
  const int count = size() - 1;
  abandon(workers_);
  workers_.clear();
  job_number_ = 0, busy_ = 0, arrived_ = 0, phase_ = 0;
  start_threads(count);
}

void ThreadPool::run(const std::function<void(int)>& job) {
  const Exclusive held(in_use_, "the thread pool");
  replace_lost_threads();
  end_meanwhile();
  const std::function<void(int)> reproducible = [&job](int thread) {
    const DefaultFloatEnvironment environment;
    job(thread);
  };
  start(reproducible, true);
  reproducible(0);
  barrier();
}

void ThreadPool::meanwhile(std::function<void(int, const std::atomic<bool>&)> work) {
  const Exclusive held(in_use_, "the thread pool");
  replace_lost_threads();
  end_meanwhile();
  if (workers_.empty()) return;
  enough_ = false;
  busy_ = static_cast<int>(workers_.size());
  meanwhile_ = [this, work = std::move(work)](int thread) {
    work(thread, enough_);
    busy_.fetch_sub(1, std::memory_order_release);
  };
  start(meanwhile_, false);
}

void ThreadPool::start(const std::function<void(int)>& job, bool joined) {
  job_ = &job;
  joined_ = joined;
  job_number_.fetch_add(1, std::memory_order_release);
  job_number_.notify_all();
}

void ThreadPool::end_meanwhile() {
  enough_ = true;
  for (int i = 0; busy_.load(std::memory_order_acquire) > 0; ++i) {
    if (i < kSpins) pause();
    else std::this_thread::yield();
  }
}

void ThreadPool::work(int index) {
  for (uint32_t seen = 0;;) {
    for (int i = 0; job_number_.load(std::memory_order_acquire) == seen; ++i) {
      if (i < kSpins) pause();
      else if (i < kSpins + kYields) std::this_thread::yield();
      else job_number_.wait(seen, std::memory_order_acquire);
    }
    ++seen;
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

void ThreadPool::share(size_t count, size_t piece, const std::function<void(size_t, size_t)>& work) {
  std::atomic<size_t> next{0};
  run([&](int) {
    for (size_t begin; (begin = next.fetch_add(piece)) < count;) work(begin, std::min(begin + piece, count));
  });
}

}  // namespace outrider
