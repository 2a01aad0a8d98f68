#include <pthread.h>
#include <sys/mman.h>

#include <cstdlib>

#include "system/system.h"

namespace outrider::system {

void* allocate_aligned(size_t alignment, size_t bytes) {
  const size_t whole = bytes / alignment * alignment, size = bytes == whole ? bytes : whole + alignment;
  auto* memory = static_cast<char*>(std::aligned_alloc(alignment, size));
  if (!memory) return nullptr;
  // Hints: a kernel without huge pages refuses them. The rest is in small pages: a huge one would hold up to 2 MB that nobody uses
  // and nobody counts.
  if (whole) madvise(memory, whole, MADV_HUGEPAGE);
  if (whole < size) madvise(memory + whole, size - whole, MADV_NOHUGEPAGE);
  return memory;
}

void free_aligned(void* memory) { std::free(memory); }

void call_in_forked_children(void (*function)()) { pthread_atfork(nullptr, nullptr, function); }

}  // namespace outrider::system
