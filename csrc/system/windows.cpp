#define _WIN32_WINNT 0x0602  // Windows 8, the first with WaitOnAddress
#include <windows.h>

#include <malloc.h>

#include "system/system.h"

namespace outrider::system {

// Large pages need a privilege that users lack.
void* allocate_aligned(size_t alignment, size_t bytes) {
  return _aligned_malloc((bytes + alignment - 1) / alignment * alignment, alignment);
}

void free_aligned(void* memory) { _aligned_free(memory); }

void call_in_forked_children(void (*)()) {}  // there is no fork

void sleep_while_equal(const void* address, const void* seen, size_t bytes) {
  WaitOnAddress(const_cast<void*>(address), const_cast<void*>(seen), bytes, INFINITE);
}

void wake_sleepers(void* address) { WakeByAddressAll(address); }

}  // namespace outrider::system
