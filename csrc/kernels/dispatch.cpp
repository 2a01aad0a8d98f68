// Run-time dispatch: the instruction sets that this build contains and this processor supports.
#include "kernels/kernel_table.h"

#include <atomic>
#include <cstring>
#include <vector>
#if defined(OUTRIDER_X86)
#include <cpuid.h>
#endif

namespace outrider {

extern const KernelTable kPortableKernels;
#if defined(OUTRIDER_X86)
extern const KernelTable kAvx512Kernels, kAvx2Kernels;
#if defined(OUTRIDER_ALL_TABLES)
extern const KernelTable kAvxVnniKernels, kAvx512BwKernels;
#endif
#if defined(OUTRIDER_TEST_TABLES)
extern const KernelTable kAvx512VlKernels;
#endif
const KernelTable& amx_kernels();  // isa_amx.cpp
bool has_amx();
#elif defined(OUTRIDER_ARM64)
extern const KernelTable kNeonI8mmKernels, kNeonKernels;
bool has_dot_product();      // isa_neon.cpp
bool has_matrix_products();  // isa_neon_i8mm.cpp
#endif

namespace {

#if defined(OUTRIDER_ALL_TABLES)
bool has_avx_vnni() {  // compilers differ in whether __builtin_cpu_supports() knows it
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 1u << 4) != 0;
}
#endif

struct Built {
  const KernelTable* table;
  bool supported;  // by this processor
};

// Fastest first.
std::vector<Built> built_tables() {
#if defined(OUTRIDER_X86)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  const bool avx512vnni = avx512 && __builtin_cpu_supports("avx512vnni");
#endif
  return {
#if defined(OUTRIDER_X86)
      {&amx_kernels(), avx512vnni && has_amx()},
      {&kAvx512Kernels, avx512vnni},
#if defined(OUTRIDER_ALL_TABLES)
      {&kAvxVnniKernels, avx2 && has_avx_vnni()},
#endif
#if defined(OUTRIDER_TEST_TABLES)
      {&kAvx512VlKernels, avx512vnni},
#endif
#if defined(OUTRIDER_ALL_TABLES)
      {&kAvx512BwKernels, avx512},
#endif
      {&kAvx2Kernels, avx2},
#elif defined(OUTRIDER_ARM64)
      {&kNeonI8mmKernels, has_dot_product() && has_matrix_products()},
      {&kNeonKernels, has_dot_product()},
#endif
      {&kPortableKernels, true}};
}

}  // namespace

const KernelTable* const* available_kernels(size_t* count) {
  static const std::vector<const KernelTable*> tables = [] {
    std::vector<const KernelTable*> found;
    for (const Built& built : built_tables())
      if (built.supported) found.push_back(built.table);
    return found;
  }();
  *count = tables.size();
  return tables.data();
}

const char* const* built_kernels(size_t* count) {
  static const std::vector<const char*> names = [] {
    std::vector<const char*> found;
    for (const Built& built : built_tables()) found.push_back(built.table->name);
    return found;
  }();
  *count = names.size();
  return names.data();
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
