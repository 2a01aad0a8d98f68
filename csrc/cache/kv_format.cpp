#include "cache/kv_format.h"

#include <cstring>

#include "weights/half.h"

namespace outrider {
namespace {

float element(KvFormat format, const uint8_t* at, size_t index) {
  if (format == KvFormat::kInt8) return reinterpret_cast<const int8_t*>(at)[index];
  if (format == KvFormat::kFloat16) return half_to_float(reinterpret_cast<const uint16_t*>(at)[index]);
  return reinterpret_cast<const float*>(at)[index];
}

}  // namespace

void read_position(const KvLayout& layout, const uint8_t* page, int slot, float* key, float* value) {
  const float *key_scales = reinterpret_cast<const float*>(page + layout.key_scales_at()),
              *value_scales = reinterpret_cast<const float*>(page + layout.value_scales_at());
  const bool scaled = layout.format == KvFormat::kInt8;
  for (int d = 0; d < layout.head_dim; ++d) {
    key[d] = element(layout.format, page, layout.key(slot, d));
    value[d] = element(layout.format, page + layout.values_at(), layout.value(slot, d));
    if (scaled) key[d] *= key_scales[layout.key_scale(slot, d / kKeyGroup)], value[d] *= value_scales[slot];
  }
}

void copy_position(const KvLayout& layout, const uint8_t* from, int slot, uint8_t* to, int to_slot) {
  const size_t size = element_bytes(layout.format);
  const auto copy = [&](size_t base, size_t source, size_t target, size_t bytes) {
    std::memcpy(to + base + target * bytes, from + base + source * bytes, bytes);
  };
  for (int d = 0; d < layout.head_dim; ++d) {
    copy(0, layout.key(slot, d), layout.key(to_slot, d), size);
    copy(layout.values_at(), layout.value(slot, d), layout.value(to_slot, d), size);
  }
  for (int g = 0; g < layout.key_groups(); ++g)
    copy(layout.key_scales_at(), layout.key_scale(slot, g), layout.key_scale(to_slot, g), sizeof(float));
  if (layout.format == KvFormat::kInt8) copy(layout.value_scales_at(), slot, to_slot, sizeof(float));
}

}  // namespace outrider
