// Built for ARMv8.2 with the dot-product extension and 8-bit matrix products; used only if the processor supports both.
#define OUTRIDER_ISA neon_i8mm
#include "simd/neon_i8mm.h"
#include "kernels/table.h"

namespace outrider {
extern const KernelTable kNeonI8mmKernels;
constinit const KernelTable kNeonI8mmKernels = neon_i8mm::make_table("neon-i8mm");
}  // namespace outrider
