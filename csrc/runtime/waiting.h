// Waiting for another thread: first by spinning, then asleep.
//
// A thread that spins keeps a core from those it waits for, if other processes keep the rest busy: the kernel moves a waiting
// thread to an idle core only. So a wait that takes longer than an idle machine needs sleeps. It never yields: a scheduler may
// take that for giving up a whole time slice.
#pragma once
#include <atomic>
#include <chrono>

#include "system/system.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace outrider {

inline void pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Spins until `done` or `limit` has passed; returns whether it is done.
template <class Done> bool spin(std::chrono::nanoseconds limit, const Done& done) {
  constexpr int kPauses = 32;  // between two looks at the clock
  for (int i = 0; i < kPauses; ++i, pause())
    if (done()) return true;
  const auto end = std::chrono::steady_clock::now() + limit;
  do {
    for (int i = 0; i < kPauses; ++i, pause())
      if (done()) return true;
  } while (std::chrono::steady_clock::now() < end);
  return done();
}

// Sleeps while `value` is `seen`; may wake for no reason. Windows sleeps by its own call: the atomic::wait of MinGW's library
// (libstdc++ 12, where there is no futex) looks at the value before it takes its lock, and misses a wake-up in between.
template <class T> void sleep_while(const std::atomic<T>& value, T seen) {
#if defined(_WIN32)
  static_assert(sizeof value == sizeof seen);
  system::sleep_while_equal(&value, &seen, sizeof seen);
#else
  value.wait(seen, std::memory_order_acquire);
#endif
}

// Sets a value that only grows: a thread that comes late does not lower what others have stored.
template <class T> void raise(std::atomic<T>& value, T least) {
  for (T seen = value.load(std::memory_order_relaxed); seen < least;)
    if (value.compare_exchange_weak(seen, least, std::memory_order_release, std::memory_order_relaxed)) return;
}

// Wakes all threads that wait for `value`, which has changed.
template <class T> void wake_all(std::atomic<T>& value) {
#if defined(_WIN32)
  system::wake_sleepers(&value);
#else
  value.notify_all();
#endif
}

// Waits until done(value), for values that are stored with release semantics and then passed to `wake_all`.
template <class T, class Done> void wait_until(const std::atomic<T>& value, std::chrono::nanoseconds limit, const Done& done) {
  if (spin(limit, [&] { return done(value.load(std::memory_order_acquire)); })) return;
  for (T seen; !done(seen = value.load(std::memory_order_acquire));) sleep_while(value, seen);
}

}  // namespace outrider
