// Built with AVX2, FMA and F16C; used only if the processor supports them.
#define OUTRIDER_ISA avx2
#include "simd/avx2.h"
#include "kernels/table.h"

namespace outrider {
extern const KernelTable kAvx2Kernels;
constinit const KernelTable kAvx2Kernels = avx2::make_table("avx2");
}  // namespace outrider
