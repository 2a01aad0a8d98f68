// Built with what isa_avx512.cpp is, and AMX int8; used only if has_amx().
#define OUTRIDER_ISA amx
#include "simd/amx.h"
#include "kernels/math.h"
#include "kernels/rowwise.h"
#include "kernels/linear_panels.h"

namespace outrider {
extern const KernelTable kAvx512Kernels;
extern const PanelKernels kAmxPanels;
constinit const PanelKernels kAmxPanels = amx::make_panel_kernels<kAvx512Kernels>();
}  // namespace outrider
