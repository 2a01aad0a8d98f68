#include "weights/huge_pages.h"

#include <mutex>
#include <new>

#include "system/system.h"

namespace outrider {
namespace {

constexpr size_t kPage = 2u << 20, kChunk = 16 * kPage, kLine = 64;

constexpr size_t round_up(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

struct Free {
  void operator()(uint8_t* p) const { system::free_aligned(p); }
};

struct Chunk {
  explicit Chunk(size_t bytes)
      : size(round_up(bytes, kPage)), memory(static_cast<uint8_t*>(system::allocate_aligned(kPage, bytes))) {
    if (!memory) throw std::bad_alloc();
  }
  size_t size, used = 0;
  std::unique_ptr<uint8_t, Free> memory;
};

std::mutex shared_chunk_mutex;
std::weak_ptr<Chunk> shared_chunk;  // small pieces are allocated from it; owned by them

std::shared_ptr<uint8_t> piece(const std::shared_ptr<Chunk>& chunk, size_t bytes) {
  uint8_t* at = chunk->memory.get() + chunk->used;
  chunk->used += bytes;
  return {chunk, at};
}

}  // namespace

std::shared_ptr<uint8_t> huge_chunk(size_t bytes) { return piece(std::make_shared<Chunk>(bytes), bytes); }

std::shared_ptr<uint8_t> huge_memory(size_t bytes) {
  bytes = round_up(bytes, kLine);
  if (bytes > kChunk / 2) return huge_chunk(bytes);
  const std::lock_guard lock(shared_chunk_mutex);
  std::shared_ptr<Chunk> chunk = shared_chunk.lock();
  if (!chunk || chunk->size - chunk->used < bytes) shared_chunk = chunk = std::make_shared<Chunk>(kChunk);
  return piece(chunk, bytes);
}

}  // namespace outrider
