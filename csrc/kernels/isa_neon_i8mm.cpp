// Built for ARMv8.2 with the dot-product extension and 8-bit matrix products; used only if the processor supports both.
#define OUTRIDER_ISA neon_i8mm
#include "simd/neon_i8mm.h"
#include "kernels/table.h"

#if defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#ifndef HWCAP2_I8MM
#define HWCAP2_I8MM (1ul << 13)  // headers of Linux before 5.6 lack it
#endif
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace outrider {
extern const KernelTable kNeonI8mmKernels;
const KernelTable kNeonI8mmKernels = neon_i8mm::make_table("neon-i8mm");

bool has_matrix_products() {
#if defined(__linux__)
  return (getauxval(AT_HWCAP2) & HWCAP2_I8MM) != 0;
#elif defined(__APPLE__)
  int found = 0;
  size_t size = sizeof found;
  return sysctlbyname("hw.optional.arm.FEAT_I8MM", &found, &size, nullptr, 0) == 0 && found != 0;
#else
  return false;
#endif
}
}  // namespace outrider
