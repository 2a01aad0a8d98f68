// Built with AVX-512 F, BW, DQ and VL, F16C and FMA; used only if the processor supports them.
#define OUTRIDER_ISA avx512bw
#include "simd/avx512bw.h"
#include "kernels/table.h"

namespace outrider {
extern const KernelTable kAvx512BwKernels;
constinit const KernelTable kAvx512BwKernels = avx512bw::make_table("avx512bw");
}  // namespace outrider
