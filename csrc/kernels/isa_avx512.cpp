// Built with AVX-512 F, BW, DQ, VL and VNNI, F16C and FMA; used only if the processor supports them.
#define OUTRIDER_ISA avx512
#include "simd/avx512.h"
#include "kernels/table.h"

namespace outrider {
extern const KernelTable kAvx512Kernels;
constinit const KernelTable kAvx512Kernels = avx512::make_table("avx512-vnni");
}  // namespace outrider
