// Kernels on matrix registers by the registers' definition, tested on every machine.
#define OUTRIDER_ISA amx_defined
#include "simd/matrix_defined.h"
#include "kernels/math.h"
#include "kernels/rowwise.h"
#include "kernels/linear_panels.h"
#include "check.h"

namespace outrider {
extern const KernelTable kPortableKernels;

namespace test {
const KernelTable& amx_defined() {
  static const KernelTable table =
      with_panels(kPortableKernels, outrider::amx_defined::make_panel_kernels<kPortableKernels>(), "amx-defined");
  return table;
}
}  // namespace test
}  // namespace outrider
