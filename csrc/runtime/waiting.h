// Waiting for another thread: first by spinning, then asleep.
//
// A thread that spins keeps a core from those it waits for, if other processes keep the rest busy: the kernel moves a waiting
// thread to an idle core only. So a wait that takes longer than an idle machine needs sleeps. It never yields: a scheduler may
// take that for giving up a whole time slice.
#pragma once
#include <atomic>
#include <chrono>

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

// Waits until done(value), for values that are stored with acquire semantics and then notified.
template <class T, class Done> void wait_until(const std::atomic<T>& value, std::chrono::nanoseconds limit, const Done& done) {
  if (spin(limit, [&] { return done(value.load(std::memory_order_acquire)); })) return;
  for (T seen; !done(seen = value.load(std::memory_order_acquire));) value.wait(seen, std::memory_order_acquire);
}

}  // namespace outrider
