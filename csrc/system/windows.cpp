#include <malloc.h>

#include "system/system.h"

namespace outrider::system {

// Large pages need a privilege that users lack.
void* allocate_aligned(size_t alignment, size_t bytes) { return _aligned_malloc(bytes, alignment); }

void free_aligned(void* memory) { _aligned_free(memory); }

void call_in_forked_children(void (*)()) {}  // there is no fork

}  // namespace outrider::system
