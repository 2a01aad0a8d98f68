// What differs between operating systems. One of linux.cpp, macos.cpp and windows.cpp is compiled.
#pragma once
#include <cstddef>

namespace outrider::system {

// `bytes` of memory, rounded up to whole blocks of `alignment`, a power of two. Where the system has transparent huge pages, blocks
// that are used to their end lie in them. Null if there is not enough. To be freed by `free_aligned`.
void* allocate_aligned(size_t alignment, size_t bytes);
void free_aligned(void* memory);

// Calls `function` in every child that this process forks from now on.
void call_in_forked_children(void (*function)());

#if defined(_WIN32)
// Sleeps while the `bytes` at `address` equal those at `seen`; may wake for no reason.
void sleep_while_equal(const void* address, const void* seen, size_t bytes);

// Wakes all threads that sleep at `address`.
void wake_sleepers(void* address);
#endif

}  // namespace outrider::system
