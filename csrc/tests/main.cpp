// The kernel tests: every instruction set of this processor against naive references and, bit for bit, against the others, on
// odd sizes. Ends with one checksum over all results, which is the same on all platforms.
#include <chrono>
#include <cinttypes>

#include "check.h"

using namespace outrider::test;

namespace {

// The checksum on x86-64 and ARM64. It changes with the tests and with the arithmetic of any kernel.
constexpr uint64_t kChecksum = 0x4a471077f70d83ed;

void timed(const char* name, void (*test)()) {
  const long failed = tally.failed, passed = tally.passed;
  const auto start = std::chrono::steady_clock::now();
  test();
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  std::printf("%-14s %6ld passed %4ld failed %6.2f s  %016" PRIx64 "\n", name, tally.passed - passed, tally.failed - failed,
              seconds, digest.value());
  std::fflush(stdout);
}

}  // namespace

// --no-fork skips the tests that fork: an emulator may not support forking a process with threads.
int main(int count, char** arguments) {
  [[maybe_unused]] const bool can_fork = count < 2 || std::strcmp(arguments[1], "--no-fork") != 0;
  std::printf("instruction sets:");
  for (const outrider::KernelTable* t : tables()) std::printf(" %s", t->name);
  std::printf("\n");
  timed("half", test_half);
  timed("linear", test_linear);
  timed("panels", test_panels);
  timed("head", test_head);
  timed("weight", test_weight);
  timed("rowwise", test_rowwise);
  timed("attention", test_attention);
  timed("kv_cache", test_kv_cache);
  timed("attention_work", test_attention_work);
  timed("threads", test_threads);
#if !defined(_WIN32)
  if (can_fork) timed("fork", test_fork);
#endif
  timed("work_stealing", test_work_stealing);
  timed("sampling", test_sampling);
  timed("quantize", test_quantize);
  timed("gumbel", test_gumbel);
  timed("reproducible", test_reproducible);
  timed("program", test_program);
  std::printf("checksum %016" PRIx64 "\n", digest.value());
  CHECK(digest.value() == kChecksum, "the results differ from those of the other platforms");
  std::printf("%ld passed, %ld failed\n", tally.passed, tally.failed);
  return tally.failed == 0 ? 0 : 1;
}
