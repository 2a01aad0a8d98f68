#include <pthread.h>

#include <cstdlib>

#include "system/system.h"

namespace outrider::system {

void* allocate_aligned(size_t alignment, size_t bytes) {
  return std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
}

void free_aligned(void* memory) { std::free(memory); }

void call_in_forked_children(void (*function)()) { pthread_atfork(nullptr, nullptr, function); }

}  // namespace outrider::system
