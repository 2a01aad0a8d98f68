#include <cstdlib>

#include "check.h"

// All processors, instruction sets and compilers must compute this: change it only with the arithmetic.
static constexpr uint64_t kChecksum = 0x39a1227a5ab8fd04ull;

int main() {
  test_halves();
  test_linear();
  test_head();
  test_rowwise();
  test_attention();
  test_kv_cache();
  test_threads();
  test_sampling();
  std::printf("checksum %016llx, instruction sets:", static_cast<unsigned long long>(g_checksum));
  for (const auto* k : all_kernels()) std::printf(" %s", k->name);
  std::printf("\n");
  CHECK(g_checksum == kChecksum, "expected %016llx", static_cast<unsigned long long>(kChecksum));
  std::printf("%d passed, %d failed\n", g_passed, g_failed);
  return g_failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
