// The floating-point environment that exactness requires: round to nearest, subnormal numbers kept. A library built with
// -ffast-math, or a call such as torch.set_flush_denormal, changes it for the threads of the whole process.
#pragma once
#include <cstdint>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace outrider {

// Sets the default environment for the calling thread; restores the previous one at the end of the scope.
class DefaultFloatEnvironment {
 public:
  DefaultFloatEnvironment() : previous_(get()) { set(kDefault); }
  ~DefaultFloatEnvironment() { set(previous_); }
  DefaultFloatEnvironment(const DefaultFloatEnvironment&) = delete;
  DefaultFloatEnvironment& operator=(const DefaultFloatEnvironment&) = delete;

 private:
#if defined(__x86_64__)
  static constexpr uint64_t kDefault = 0x1F80;  // MXCSR: all exceptions masked
  static uint64_t get() { return _mm_getcsr(); }
  static void set(uint64_t value) { _mm_setcsr(static_cast<uint32_t>(value)); }
#elif defined(__aarch64__)
  static constexpr uint64_t kDefault = 0;  // FPCR
  static uint64_t get() {
    uint64_t value;
    asm volatile("mrs %0, fpcr" : "=r"(value));
    return value;
  }
  static void set(uint64_t value) { asm volatile("msr fpcr, %0" : : "r"(value)); }
#else
  static constexpr uint64_t kDefault = 0;
  static uint64_t get() { return 0; }
  static void set(uint64_t) {}
#endif

  uint64_t previous_;
};

}  // namespace outrider
