// The kernels of isa_avx_vnni.cpp with AVX-512's encoding of the byte products, for the kernel tests alone: processors of the tests
// with AVX-512 VNNI may lack AVX-VNNI.
#define OUTRIDER_ISA avx512vl
#include "simd/avx_vnni.h"
#include "kernels/table.h"

namespace outrider {
extern const KernelTable kAvx512VlKernels;
constinit const KernelTable kAvx512VlKernels = avx512vl::make_table("avx512vl-vnni");
}  // namespace outrider
