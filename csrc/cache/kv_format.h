// Storage formats of cached keys and values, and how one head of one layer lies in a page.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace outrider {

// kInt8: codes -127..127. A scale covers kKeyGroup dimensions of a key, or a whole value, whose scale belongs to its position
// alone, so that attention can fold it into the softmax weight. Layers with a sliding window stay in float16: they are the more
// sensitive to rounding, and short.
enum class KvFormat : uint8_t { kFloat32, kFloat16, kInt8 };
inline constexpr const char* kKvFormats[] = {"float32", "float16", "int8"};

constexpr KvFormat layer_format(KvFormat cache, int window) {
  return cache == KvFormat::kInt8 && window ? KvFormat::kFloat16 : cache;
}

constexpr size_t element_bytes(KvFormat f) { return f == KvFormat::kFloat32 ? 4 : f == KvFormat::kFloat16 ? 2 : 1; }

// Positions of a page. A page begins at a multiple of it.
inline constexpr int64_t kPagePositions = 128;
inline constexpr int kKeyGroup = 32;

// One head's part of a page. head_dim is a multiple of 16. A slot is position % kPagePositions.
//   keys, kFloat32 and kFloat16   [slot / 16][dimension][slot % 16]
//   values                        [slot][dimension]
//   keys, kInt8                   [slot / 16][dimension / 4][slot % 16][dimension % 4]
//   values, kInt8                 [dimension / 16][slot / 4][dimension % 16][slot % 4]
//   scales of keys, kInt8         float32 [slot / 16][dimension / kKeyGroup][slot % 16]
//   scales of values, kInt8       float32 [slot]
struct KvLayout {
  KvFormat format;
  int head_dim;

  constexpr int key_groups() const { return format == KvFormat::kInt8 ? (head_dim + kKeyGroup - 1) / kKeyGroup : 0; }
  constexpr size_t values_at() const { return kPagePositions * head_dim * element_bytes(format); }
  constexpr size_t key_scales_at() const { return 2 * values_at(); }
  constexpr size_t value_scales_at() const { return key_scales_at() + sizeof(float) * kPagePositions * key_groups(); }
  constexpr size_t bytes() const { return value_scales_at() + (format == KvFormat::kInt8 ? sizeof(float) * kPagePositions : 0); }

  // Indices of elements.
  constexpr size_t key(int slot, int dimension) const {
    const size_t block = static_cast<size_t>(slot / 16) * head_dim * 16;
    return format == KvFormat::kInt8 ? block + static_cast<size_t>(dimension / 4) * 64 + slot % 16 * 4 + dimension % 4
                                     : block + static_cast<size_t>(dimension) * 16 + slot % 16;
  }
  constexpr size_t value(int slot, int dimension) const {
    return format == KvFormat::kInt8
               ? (static_cast<size_t>(dimension / 16) * (kPagePositions / 4) + slot / 4) * 64 + dimension % 16 * 4 + slot % 4
               : static_cast<size_t>(slot) * head_dim + dimension;
  }
  constexpr size_t key_scale(int slot, int group) const {
    return (static_cast<size_t>(slot / 16) * key_groups() + group) * 16 + slot % 16;
  }
};

// The key and value in a slot, (head_dim) float32 each.
void read_position(const KvLayout& layout, const uint8_t* page, int slot, float* key, float* value);
// Copies a key and a value from one slot to another.
void copy_position(const KvLayout& layout, const uint8_t* from, int slot, uint8_t* to, int to_slot);

// One head of one layer of a sequence.
struct KvHead {
  KvLayout layout;
  uint8_t* const* pages;  // by position / kPagePositions; null where the sequence holds none
  size_t offset;          // of the head within each page
  // The head's part of the page with a position.
  uint8_t* page(int64_t position) const { return pages[position / kPagePositions] + offset; }
};

}  // namespace outrider
