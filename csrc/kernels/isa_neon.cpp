// Built for ARMv8.2 with the dot-product extension; used only if the processor supports it.
#define OUTRIDER_ISA neon
#include "simd/neon.h"
#include "kernels/table.h"

namespace outrider {
extern const KernelTable kNeonKernels;
constinit const KernelTable kNeonKernels = neon::make_table("neon-dotprod");
}  // namespace outrider
