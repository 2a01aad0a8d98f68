#include "weights/huge_pages.h"

#include <cstdlib>
#include <mutex>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace outrider {
namespace {

constexpr size_t kPage = 2u << 20, kChunk = 16 * kPage, kLine = 64;

constexpr size_t up_to(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

struct Free {
  void operator()(uint8_t* p) const { std::free(p); }
};

struct Chunk {
  explicit Chunk(size_t bytes) : size(up_to(bytes, kPage)), memory(static_cast<uint8_t*>(std::aligned_alloc(kPage, size))) {
    if (!memory) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
    madvise(memory.get(), size, MADV_HUGEPAGE);
#endif
  }
  size_t size, used = 0;
  std::unique_ptr<uint8_t, Free> memory;
};

std::mutex filling;
std::weak_ptr<Chunk> shared;  // the chunk that small pieces come from; it lives as long as one of them

std::shared_ptr<uint8_t> piece(const std::shared_ptr<Chunk>& of, size_t bytes) {
  uint8_t* at = of->memory.get() + of->used;
  of->used += bytes;
  return {of, at};
}

}  // namespace

std::shared_ptr<uint8_t> huge_memory(size_t bytes) {
  bytes = up_to(bytes, kLine);
  if (bytes > kChunk / 2) return piece(std::make_shared<Chunk>(bytes), bytes);
  const std::lock_guard lock(filling);
  std::shared_ptr<Chunk> chunk = shared.lock();
  if (!chunk || chunk->size - chunk->used < bytes) shared = chunk = std::make_shared<Chunk>(kChunk);
  return piece(chunk, bytes);
}

}  // namespace outrider
