// Built with AVX2, FMA and F16C; entered only where the processor has them.
#define OUTRIDER_ISA avx2
#include "simd/avx2.h"
#include "kernels/table.h"

namespace outrider {
extern const KernelTable kAvx2Kernels;
const KernelTable kAvx2Kernels = avx2::make_table("avx2");
}  // namespace outrider
