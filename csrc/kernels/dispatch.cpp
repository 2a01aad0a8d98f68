// Run-time dispatch: the instruction sets that this build contains and this processor supports.
#include "kernels/kernel_table.h"

#include <atomic>
#include <cstring>

namespace outrider {

extern const KernelTable kPortableKernels;
#if defined(OUTRIDER_X86)
extern const KernelTable kAvx512Kernels, kAvx2Kernels;
const KernelTable& amx_kernels();  // isa_amx.cpp
bool has_amx();
#elif defined(OUTRIDER_ARM64)
extern const KernelTable kNeonKernels;
bool has_dot_product();  // isa_neon.cpp
#endif

const KernelTable* const* available_kernels(size_t* count) {
  static const KernelTable* tables[5];
  static const size_t found = [] {
    size_t n = 0;
#if defined(OUTRIDER_X86)
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
    if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni")) {
      if (has_amx()) tables[n++] = &amx_kernels();
      tables[n++] = &kAvx512Kernels;
    }
    if (avx2) tables[n++] = &kAvx2Kernels;
#elif defined(OUTRIDER_ARM64)
    if (has_dot_product()) tables[n++] = &kNeonKernels;
#endif
    tables[n++] = &kPortableKernels;
    return n;
  }();
  *count = found;
  return tables;
}

namespace {

std::atomic<const KernelTable*>& active() {
  static std::atomic<const KernelTable*> table = [] {
    size_t count;
    return available_kernels(&count)[0];
  }();
  return table;
}

}  // namespace

const KernelTable& active_kernels() { return *active(); }

void use_kernels(const KernelTable& table) { active() = &table; }

bool choose_kernels(const char* name) {
  size_t count;
  const KernelTable* const* tables = available_kernels(&count);
  for (size_t i = 0; i < count; ++i)
    if (std::strcmp(tables[i]->name, name) == 0) {
      use_kernels(*tables[i]);
      return true;
    }
  return false;
}

}  // namespace outrider
