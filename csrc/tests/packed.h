// Random matrices, as checkpoint blocks and packed, and random activations.
#pragma once
#include "weights/half.h"
#include "weights/weights.h"
#include "check.h"

namespace outrider::test {

enum class Fill { kRandom, kLargestCodes, kSmallestCodes };

// Byte offsets of the float16 scales within a checkpoint block.
inline std::vector<int> half_offsets(Format f) {
  switch (f) {
    case Format::Q6_K: return {208};
    case Format::Q3_K: return {108};
    case Format::Q2_K: return {80, 82};
    case Format::TQ2_0: return {64};
    case Format::MXFP4:
    case Format::NVFP4: return {};
    default: break;
  }
  if (info(f).bits == 0 || info(f).scales == Scales::kGroups) return {};
  const bool minimum = info(f).scales == Scales::kMin || info(f).scales == Scales::kSuperMin;
  return minimum ? std::vector<int>{0, 2} : std::vector<int>{0};
}

inline std::vector<uint8_t> random_blocks(Format f, size_t rows, size_t columns, Random& random, Fill fill = Fill::kRandom) {
  const FormatInfo& fi = info(f);
  std::vector<uint8_t> blocks(rows * row_bytes(f, columns));
  if (fi.bits == 0 && fi.scales == Scales::kNone) {
    for (size_t i = 0; i < rows * columns; ++i) {
      const float x = random.bell();
      const uint32_t bits = bits_of(x);
      const uint16_t half = f == Format::F16 ? float_to_half(x) : static_cast<uint16_t>(bits >> 16);
      if (f == Format::F32) std::memcpy(&blocks[i * 4], &bits, 4);
      else std::memcpy(&blocks[i * 2], &half, 2);
    }
    return blocks;
  }
  for (uint8_t& b : blocks)
    b = fill == Fill::kRandom ? static_cast<uint8_t>(random.next()) : fill == Fill::kLargestCodes ? 0xff : 0x00;
  if (f == Format::F8_E4M3)
    for (uint8_t& b : blocks) b = (b & 0x7f) == 0x7f ? 0x7e : b;        // no NaN
  if ((f == Format::Q8_0 || f == Format::I8) && fill != Fill::kRandom)  // int8: the extremes are 127 and -128
    for (uint8_t& b : blocks) b = fill == Fill::kLargestCodes ? 0x7f : 0x80;
  if (fi.table == &kTwiceE2m1 && fill == Fill::kLargestCodes)  // 4-bit floats: the sign is the highest bit
    for (uint8_t& b : blocks) b = 0x77;
  for (size_t at = 0; at < blocks.size(); at += fi.block_bytes) {
    // Exponents of 2^-22 to 2^-2, some of the smallest.
    if (f == Format::MXFP4) blocks[at] = static_cast<uint8_t>(random.below(8) ? 106 + random.below(20) : random.below(3));
    for (int offset : half_offsets(f)) {
      float scale = random.uniform() * (random.below(8) == 0 ? 0x1p-16f : 0x1p-4f);  // some become subnormal float16
      if (random.below(16) == 0) scale = 0.0f;
      const uint16_t half = float_to_half(scale);
      std::memcpy(&blocks[at + offset], &half, 2);
    }
  }
  return blocks;
}

// Scales of (rows, groups), as the checkpoint stores them beside the codes; of a format with kGroups.
struct StoredScales {
  std::vector<float> scale;
  std::vector<uint8_t> zero;
  size_t groups = 0;
  GroupScales view() const { return {scale.data(), zero.empty() ? nullptr : zero.data(), groups}; }
};

inline StoredScales random_scales(Format f, size_t rows, size_t groups, bool zero_points, Random& random) {
  StoredScales s;
  if (info(f).scales != Scales::kGroups) return s;
  s.groups = groups;
  for (size_t i = 0; i < rows * groups; ++i) {
    s.scale.push_back(random.below(16) == 0 ? 0.0f : random.uniform() * 0x1p-4f);
    if (zero_points) s.zero.push_back(static_cast<uint8_t>(random.below((1 << info(f).bits) + (f != Format::I8))));
  }
  return s;
}

struct Packed {
  Format format;
  size_t rows, columns;
  std::vector<uint8_t> blocks, codes, scales;
  StoredScales stored;
  Matrix matrix;

  Packed(Format f, size_t r, size_t c, std::vector<uint8_t> b, StoredScales s = {})
      : format(f), rows(r), columns(c), blocks(std::move(b)), stored(std::move(s)) {
    matrix = packed_shape(f, rows, columns, stored.view());
    codes.assign(matrix.tiles * matrix.tile_codes, 0xa5);
    scales.assign(matrix.tiles * matrix.tile_scales + 1, 0xa5);  // never null
    for (size_t t = 0; t < matrix.tiles; ++t)
      pack_tile(f, rows, columns, blocks.data(), t * kTile, codes.data() + t * matrix.tile_codes,
                scales.data() + t * matrix.tile_scales, stored.view());
    matrix.codes = codes.data();
    matrix.scales = scales.data();
  }
  Packed(const Packed&) = delete;

  bool quantized() const { return info(format).bits != 0; }
  std::vector<float> row(size_t r) const {
    std::vector<float> out(columns);
    dequantize_row(format, blocks.data() + r * row_bytes(format, columns), columns, out.data(), stored.view().from_row(r));
    return out;
  }
};

// Activation rows; also quantized if the number of columns is a multiple of 32, to static_scale unless that is 0.
struct Activations {
  size_t rows, columns;
  std::vector<float> x;
  std::vector<ActivationGroup> groups;
  std::vector<ActivationDigits> digits;
  std::vector<QuantizedRow> quantized;
  std::vector<const float*> dense;

  Activations(size_t r, size_t c, std::vector<float> values, const KernelTable& k = portable(), float static_scale = 0.0f)
      : rows(r), columns(c), x(std::move(values)), groups(r * (c / kGroup)), digits(groups.size()) {
    for (size_t i = 0; i < rows; ++i) {
      dense.push_back(x.data() + i * c);
      if (c % kGroup) continue;
      const size_t first = i * (c / kGroup);
      if (static_scale != 0.0f) k.quantize_row_static(dense[i], static_cast<int>(c), static_scale, &groups[first], &digits[first]);
      else k.quantize_row(dense[i], static_cast<int>(c), &groups[first], &digits[first]);
      quantized.push_back({&groups[first], &digits[first]});
    }
  }
  Activations(const Activations&) = delete;

  // The value of column k of row r that kernels compute with.
  double value(bool as_quantized, size_t r, size_t k) const {
    if (!as_quantized) return x[r * columns + k];
    const ActivationGroup& group = quantized[r][k / kGroup];
    return static_cast<double>(group.codes[k % kGroup]) * group.scale;
  }
};

// Quantized rows as panels; what is left of the last one is NaN. Null without rows.
class Panels {
 public:
  Panels(const std::vector<QuantizedRow>& rows, size_t groups) : panels_((rows.size() + kPanelRows - 1) / kPanelRows * groups) {
    if (!panels_.empty()) std::memset(static_cast<void*>(panels_.data()), 0xff, panels_.size() * sizeof(ActivationPanel));
    for (size_t r = 0; r < rows.size(); ++r)
      pack_row(rows[r].groups, groups, static_cast<int>(r) % kPanelRows, panels_.data() + r / kPanelRows * groups);
  }
  const ActivationPanel* data() const { return panels_.empty() ? nullptr : panels_.data(); }

 private:
  std::vector<ActivationPanel> panels_;
};

}  // namespace outrider::test
