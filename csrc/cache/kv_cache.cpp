#include "cache/kv_cache.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <new>
#include <stdexcept>
#include <string>

#include "weights/half.h"

namespace outrider {

KvCache::KvCache(const std::vector<KvShape>& layers, int64_t max_positions, int max_rows, KvFormat format)
    : max_positions_(max_positions), max_rows_(max_rows), format_(format) {
  for (const KvShape& s : layers) {
    // + 32: attention reads whole blocks of 16 positions, which may overlap either end of what a pass attends to.
    int64_t slots = s.window ? std::min<int64_t>(s.window + max_rows + 32, max_positions) : max_positions;
    slots = (slots + 15) / 16 * 16;
    const size_t bytes = (static_cast<size_t>(s.kv_heads) * slots * s.head_dim * element_bytes(format_) + 63) / 64 * 64;
    layers_.push_back({s, slots, size_, size_ + bytes, size_ + 2 * bytes});
    size_ += 2 * bytes;
    if (format_ == KvFormat::kInt8)
      size_ += static_cast<size_t>(s.kv_heads) * 2 * slots * sizeof(float);  // aligned: slots is a multiple of 16
  }
  size_ = std::max<size_t>(size_, 64);
  void* p = mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) throw std::bad_alloc();
  data_ = static_cast<uint8_t*>(p);
}

KvCache::~KvCache() { munmap(data_, size_); }

KvHead KvCache::head(int layer, int head) const {
  const Layer& l = layers_[layer];
  const size_t offset = static_cast<size_t>(head) * l.capacity * l.shape.head_dim * element_bytes(format_);
  KvHead h{format_, data_ + l.keys_at + offset, data_ + l.values_at + offset, nullptr, nullptr};
  if (format_ == KvFormat::kInt8) {
    h.key_scales = reinterpret_cast<float*>(data_ + l.scales_at) + static_cast<size_t>(head) * 2 * l.capacity;
    h.value_scales = h.key_scales + l.capacity;
  }
  return h;
}

void KvCache::read(int layer, int64_t position, float* key, float* value) const {
  const Exclusive lock = exclusive();
  if (layer < 0 || layer >= layers()) throw std::invalid_argument("the cache has no layer " + std::to_string(layer));
  const Layer& l = layers_[layer];
  if (position < 0 || position >= length_ || position < written_ - l.capacity)
    throw std::invalid_argument("layer " + std::to_string(layer) + " does not hold position " + std::to_string(position));
  const int64_t slot = position % l.capacity;
  const size_t dim = l.shape.head_dim, block = static_cast<size_t>(slot / 16) * dim * 16 + slot % 16;
  const auto element = [&](const void* at, size_t index, const float* scales) {
    switch (format_) {
      case KvFormat::kFloat32: return static_cast<const float*>(at)[index];
      case KvFormat::kFloat16: return half_to_float(static_cast<const uint16_t*>(at)[index]);
      default: return static_cast<float>(static_cast<const int8_t*>(at)[index]) * scales[slot];
    }
  };
  for (int h = 0; h < l.shape.kv_heads; ++h) {
    const KvHead from = head(layer, h);
    for (size_t d = 0; d < dim; ++d) {
      key[h * dim + d] = element(from.keys, block + d * 16, from.key_scales);
      value[h * dim + d] = element(from.values, slot * dim + d, from.value_scales);
    }
  }
}

void KvCache::check_room(int rows) const {
  if (rows > max_rows_)
    throw std::invalid_argument("a pass may stage at most " + std::to_string(max_rows_) + " rows of a sequence, not " +
                                std::to_string(rows));
  if (length_ + rows > max_positions_)
    throw std::invalid_argument("the cache has room for " + std::to_string(max_positions_) + " positions; " +
                                std::to_string(length_) + " are used, and the pass needs " + std::to_string(rows) + " more");
}

void KvCache::stage(int rows) {
  check_room(rows);
  staged_ = rows;
  written_ = std::max(written_, length_ + rows);
}

void KvCache::commit(const std::vector<int32_t>& path) {
  const Exclusive lock = exclusive();
  for (size_t d = 0; d < path.size(); ++d)
    if (path[d] < 0 || path[d] >= staged_ || (d > 0 && path[d] <= path[d - 1]))
      throw std::invalid_argument("a committed path must list staged rows in ascending order: row " + std::to_string(path[d]) +
                                  " is out of order or not among the " + std::to_string(staged_) + " staged rows");
  for (size_t d = 0; d < path.size(); ++d) {
    const int64_t from = length_ + path[d], to = length_ + static_cast<int64_t>(d);
    if (from == to) continue;
    for (int l = 0; l < layers(); ++l) move_row(l, from % layers_[l].capacity, to % layers_[l].capacity);
  }
  length_ += static_cast<int64_t>(path.size());
  staged_ = 0;
}

void KvCache::move_row(int layer, int64_t from, int64_t to) {
  const KvShape& shape = layers_[layer].shape;
  const size_t element = element_bytes(format_), dim = shape.head_dim;
  const size_t source = static_cast<size_t>(from / 16) * dim * 16 + from % 16,
               target = static_cast<size_t>(to / 16) * dim * 16 + to % 16;
  for (int h = 0; h < shape.kv_heads; ++h) {
    const KvHead at = head(layer, h);
    uint8_t *k = static_cast<uint8_t*>(at.keys), *v = static_cast<uint8_t*>(at.values);
    for (size_t d = 0; d < dim; ++d) std::memcpy(k + (target + d * 16) * element, k + (source + d * 16) * element, element);
    std::memcpy(v + to * dim * element, v + from * dim * element, dim * element);
    if (at.key_scales) at.key_scales[to] = at.key_scales[from], at.value_scales[to] = at.value_scales[from];
  }
}

int64_t KvCache::earliest() const {
  // A ring buffer holds position p until p + capacity is written. Length n needs positions n - window + 1 and on.
  int64_t earliest = 0;
  for (const Layer& l : layers_)
    if (l.shape.window && written_ > l.capacity) earliest = std::max(earliest, written_ - l.capacity + l.shape.window - 1);
  return earliest;
}

void KvCache::truncate(int64_t length) {
  const Exclusive lock = exclusive();
  if (length < 0 || length > length_)
    throw std::invalid_argument("cannot truncate a sequence of " + std::to_string(length_) + " positions to " +
                                std::to_string(length));
  if (length != 0 && length < earliest())
    throw std::invalid_argument("cannot truncate to " + std::to_string(length) + " positions: the sliding-window layers have " +
                                "overwritten positions that the next one attends to; the earliest length to go back to is " +
                                std::to_string(earliest()) + ", or 0 to start again");
  length_ = length;
  if (length == 0) written_ = 0;
  staged_ = 0;
}

}  // namespace outrider
