#include <pthread.h>
#include <sys/mman.h>

#include <cstdlib>

#include "system/system.h"

namespace outrider::system {

void* allocate_aligned(size_t alignment, size_t bytes) {
  void* memory = std::aligned_alloc(alignment, bytes);
  if (memory) madvise(memory, bytes, MADV_HUGEPAGE);  // a hint: a kernel without huge pages refuses it
  return memory;
}

void free_aligned(void* memory) { std::free(memory); }

void call_in_forked_children(void (*function)()) { pthread_atfork(nullptr, nullptr, function); }

}  // namespace outrider::system
