// Plain C++ for any processor.
#define OUTRIDER_ISA portable
#include "simd/portable.h"
#include "kernels/table.h"

namespace outrider {
extern const KernelTable kPortableKernels;
constinit const KernelTable kPortableKernels = portable::make_table("portable");
}  // namespace outrider
