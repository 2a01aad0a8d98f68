// Storage formats of cached keys and values.
#pragma once
#include <cstddef>
#include <cstdint>

namespace outrider {

// kInt8: codes -127..127 with one float32 scale per head and position.
enum class KvFormat : uint8_t { kFloat32, kFloat16, kInt8 };
inline constexpr const char* kKvFormats[] = {"float32", "float16", "int8"};

constexpr size_t element_bytes(KvFormat f) { return f == KvFormat::kFloat32 ? 4 : f == KvFormat::kFloat16 ? 2 : 1; }

// One head of one layer of a cache. The layout of keys and values is described in kernels/attention.h. The scales, one per
// slot, are null unless the format is kInt8.
struct KvHead {
  KvFormat format;
  void *keys, *values;
  float *key_scales, *value_scales;
};

}  // namespace outrider
