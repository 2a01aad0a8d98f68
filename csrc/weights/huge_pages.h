// Memory in transparent huge pages: reading a gigabyte then needs few page-table walks, and the hardware prefetcher,
// which stops at page borders, is interrupted less often. Small matrices share a chunk, as each is smaller than a huge page.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>

namespace outrider {

// At least `bytes`, aligned to a cache line, uninitialized. A chunk is freed with the last piece allocated from it.
// Throws std::bad_alloc.
std::shared_ptr<uint8_t> huge_memory(size_t bytes);

// The same in a chunk that nothing else shares. What is behind its last whole huge page lies in small ones.
std::shared_ptr<uint8_t> huge_chunk(size_t bytes);

}  // namespace outrider
