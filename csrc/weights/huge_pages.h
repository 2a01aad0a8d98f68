// Memory for weights in huge pages, which spare a sweep over a gigabyte its page-table walks, and let the core's own
// prefetcher run on where a small page would stop it. Small matrices share a chunk, for each alone would have none.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>

namespace outrider {

// At least `bytes`, aligned to a cache line, not cleared. A chunk is given back once all that lies in it is dropped.
// Throws std::bad_alloc.
std::shared_ptr<uint8_t> huge_memory(size_t bytes);

}  // namespace outrider
