// Writing keys and values of new rows into the cache.
#pragma once
#include "kernels/attention_scores.h"

namespace outrider::OUTRIDER_ISA {

inline void store_codes(const float* key, const float* value, int begin, int end, uint8_t* page, int slot, const KvLayout& layout) {
  int8_t *keys = reinterpret_cast<int8_t*>(page), *values = reinterpret_cast<int8_t*>(page + layout.values_at());
  float* key_scales = reinterpret_cast<float*>(page + layout.key_scales_at());
  const CodeScale of_value = code_scale(value, layout.head_dim);
  if (begin == 0) reinterpret_cast<float*>(page + layout.value_scales_at())[slot] = of_value.scale;
  CodeScale of_key{};
  for (int d = begin; d < end; d += 16) {
    if (d % kKeyGroup == 0) {
      of_key = code_scale(key + d, std::min(kKeyGroup, layout.head_dim - d));
      key_scales[layout.key_scale(slot, d / kKeyGroup)] = of_key.scale;
    }
    int8_t codes[16];
    store_int8(codes, codes_of(load(key + d), of_key));
    for (int i = 0; i < 16; i += 4) std::memcpy(keys + layout.key(slot, d + i), codes + i, 4);
    store_int8(codes, codes_of(load(value + d), of_value));
    for (int i = 0; i < 16; ++i) values[layout.value(slot, d + i)] = codes[i];
  }
}

template <class T, class Convert>
inline void store_floats(const float* key, const float* value, int begin, int end, uint8_t* page, int slot, const KvLayout& layout,
                         const Convert& convert) {
  T *keys = reinterpret_cast<T*>(page), *values = reinterpret_cast<T*>(page + layout.values_at());
  for (int d = begin; d < end; d += 16) {
    T converted[16];
    convert(converted, load(key + d));
    for (int i = 0; i < 16; ++i) keys[layout.key(slot, d + i)] = converted[i];
    convert(values + layout.value(slot, d), load(value + d));
  }
}

// Writes dimensions begin .. end - 1 of one row's key and value for one head into a slot; begin is a multiple of kKeyGroup, end
// too or head_dim.
inline void store_kv(const float* key, const float* value, int begin, int end, int64_t slot, const KvHead& to) {
  uint8_t* page = to.page(slot);
  const int at = static_cast<int>(slot % kPagePositions);
  switch (to.layout.format) {
    case KvFormat::kFloat32: return store_floats<float>(key, value, begin, end, page, at, to.layout, store);
    case KvFormat::kFloat16: return store_floats<uint16_t>(key, value, begin, end, page, at, to.layout, store_f16);
    case KvFormat::kInt8: return store_codes(key, value, begin, end, page, at, to.layout);
  }
}

}  // namespace outrider::OUTRIDER_ISA
