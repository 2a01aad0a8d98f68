// Storage of cached keys and values: formats, and where a head lies within a page.
#pragma once
#include <cstddef>
#include <cstdint>

namespace outrider {

// kInt8: codes -127..127 with one float32 scale per head and position.
enum class KvFormat : uint8_t { kFloat32, kFloat16, kInt8 };
inline constexpr const char* kKvFormats[] = {"float32", "float16", "int8"};

constexpr size_t element_bytes(KvFormat f) { return f == KvFormat::kFloat32 ? 4 : f == KvFormat::kFloat16 ? 2 : 1; }

// Positions of a page. A page begins at a multiple of it.
inline constexpr int64_t kPagePositions = 128;

// Byte offsets of one head of one layer within a page. The layout of keys and values is described in kernels/attention.h. The
// scales, one float32 per position, exist in format kInt8 only.
struct HeadLayout { size_t keys, values, key_scales, value_scales, end; };

constexpr HeadLayout head_layout(KvFormat format, int head_dim, size_t begin) {
  const size_t codes = kPagePositions * head_dim * element_bytes(format);
  const size_t scales = format == KvFormat::kInt8 ? kPagePositions * sizeof(float) : 0;
  return {begin, begin + codes, begin + 2 * codes, begin + 2 * codes + scales, begin + 2 * codes + 2 * scales};
}

// One head of one layer of a sequence.
struct KvHead {
  KvFormat format;
  HeadLayout at;
  uint8_t* const* pages;  // by position / kPagePositions; null where the sequence holds none

  template <class T> T* in_page(int64_t position, size_t offset) const {
    return reinterpret_cast<T*>(pages[position / kPagePositions] + offset);
  }
};

}  // namespace outrider
