// Built with what isa_avx512.cpp is, and AMX int8; used only if has_amx().
#define OUTRIDER_ISA amx
#include "simd/amx.h"
#include "kernels/math.h"
#include "kernels/rowwise.h"
#include "kernels/linear_panels.h"

#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace outrider {

extern const KernelTable kAvx512Kernels;
const KernelTable& amx_kernels() {
  static const KernelTable table = amx::with_panels<kAvx512Kernels>("amx");
  return table;
}

// Whether the processor has AMX int8 and the system lets this process use it. Linux grants that on request.
bool has_amx() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  constexpr unsigned kTile = 1u << 24, kInt8 = 1u << 25;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & kTile) == 0 || (d & kInt8) == 0) return false;
#if defined(__linux__) && defined(SYS_arch_prctl)
  constexpr int kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

}  // namespace outrider
