// Built for ARMv8.2 with the dot-product extension; used only if the processor supports it.
#define OUTRIDER_ISA neon
#include "simd/neon.h"
#include "kernels/table.h"

#if defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace outrider {
extern const KernelTable kNeonKernels;
const KernelTable kNeonKernels = neon::make_table("neon-dotprod");

bool has_dot_product() {
#if defined(__linux__)
  return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
#elif defined(__APPLE__)
  return true;  // every Apple processor with ARM64
#else
  return false;
#endif
}
}  // namespace outrider
