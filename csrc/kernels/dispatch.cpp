// Run-time dispatch: the instruction sets that this build contains and this processor supports. This file and processor.cpp are
// compiled for any processor. The isa_*.cpp are not, so they hold constants alone that are read here, and nothing in them is called
// before this says that the processor supports it.
#include "kernels/kernel_table.h"

#include <atomic>
#include <cstring>
#include <vector>

#include "kernels/processor.h"

namespace outrider {

extern const KernelTable kPortableKernels;
#if defined(OUTRIDER_X86)
extern const KernelTable kAvx512Kernels, kAvx2Kernels;
extern const PanelKernels kAmxPanels;
#if defined(OUTRIDER_ALL_TABLES)
extern const KernelTable kAvxVnniKernels, kAvx512BwKernels;
#endif
#if defined(OUTRIDER_TEST_TABLES)
extern const KernelTable kAvx512VlKernels;
#endif
#elif defined(OUTRIDER_ARM64)
extern const KernelTable kNeonI8mmKernels, kNeonKernels;
#endif

KernelTable with_panels(const KernelTable& few, const PanelKernels& panels, const char* name) {
  KernelTable table = few;
  table.name = name;
  table.linear_tile = panels.linear_tile;
  table.head_tiles = panels.head_tiles;
  table.least_panel_rows = panels.least_rows;
  table.end_run = panels.end_run;
  return table;
}

namespace {

struct Built {
  const KernelTable* table;
  bool supported;  // by this processor
};

// Fastest first.
std::vector<Built> built_tables() {
#if defined(OUTRIDER_X86)
  static const KernelTable amx = with_panels(kAvx512Kernels, kAmxPanels, "amx");
#endif
  return {
#if defined(OUTRIDER_X86)
      {&amx, has_amx()},
      {&kAvx512Kernels, has_avx512_vnni()},
#if defined(OUTRIDER_ALL_TABLES)
      {&kAvxVnniKernels, has_avx_vnni()},
#endif
#if defined(OUTRIDER_TEST_TABLES)
      {&kAvx512VlKernels, has_avx512_vnni()},
#endif
#if defined(OUTRIDER_ALL_TABLES)
      {&kAvx512BwKernels, has_avx512()},
#endif
      {&kAvx2Kernels, has_avx2()},
#elif defined(OUTRIDER_ARM64)
      {&kNeonI8mmKernels, has_matrix_products()},
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
