// Built with AVX2, FMA, F16C and AVX-VNNI; used only if the processor supports them.
#define OUTRIDER_ISA avx_vnni
#include "simd/avx_vnni.h"
#include "kernels/table.h"

namespace outrider {
extern const KernelTable kAvxVnniKernels;
constinit const KernelTable kAvxVnniKernels = avx_vnni::make_table("avx-vnni");
}  // namespace outrider
