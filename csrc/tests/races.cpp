// The tests of the threads alone, for the thread sanitizer: all that synchronizes threads during a pass is in them. Those that
// fork are not: the sanitizer loses the threads of a forked process.
#include "check.h"

using namespace outrider::test;

int main() {
  test_threads();
  test_work_stealing();
  std::printf("%ld passed, %ld failed\n", tally.passed, tally.failed);
  return tally.failed == 0 ? 0 : 1;
}
