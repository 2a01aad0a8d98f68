#include "weights/weights.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "weights/blocks.h"
#include "weights/half.h"
#include "weights/huge_pages.h"
#include "runtime/threads.h"

namespace outrider {
namespace {

// Writes the quads of one row's group to their bit planes.
void put_quads(int bits, uint8_t* at, int row, const uint32_t (&quad)[8]) {
  const auto put = [&](size_t plane, uint32_t four) { std::memcpy(at + 64 * plane + 4 * row, &four, 4); };
  if (bits == 8) {
    for (size_t k = 0; k < 8; ++k) put(k, quad[k]);
    return;
  }
  if (bits == 2) {
    uint32_t pairs[2] = {};
    for (int k = 0; k < 8; ++k) pairs[k / 4] |= quad[k] << (2 * (k % 4));
    put(0, pairs[0]), put(1, pairs[1]);
    return;
  }
  for (size_t k = 0; k < 4; ++k) put(k, (quad[2 * k] & kNibbles) | ((quad[2 * k + 1] & kNibbles) << 4));
  uint32_t high[2] = {};
  if (bits == 5) {
    for (int k = 0; k < 8; ++k) high[0] |= ((quad[k] >> 4) & kOnes) << k;
    put(4, high[0]);
  } else if (bits == 6) {
    for (int k = 0; k < 8; ++k) high[k / 4] |= ((quad[k] >> 4) & kPairs) << (2 * (k % 4));
    put(4, high[0]), put(5, high[1]);
  }
}

// Moves the 4-bit scale of a group into its codes (Scales::kInSigns).
void put_in_signs(uint32_t scale, uint32_t (&quad)[8]) {
  constexpr uint32_t kLastSign = 8u << 24;
  for (int j = 0; j < 4; ++j) quad[2 * j + 1] = (quad[2 * j + 1] & ~kLastSign) | (scale >> j & 1) << 27;
}

void pack_scales(Format f, size_t columns, const uint8_t* row, int lane, uint8_t* at) {
  const auto put_half = [&](uint8_t* vector, uint16_t half) { std::memcpy(vector + 2 * lane, &half, 2); };
  const auto put_own = [&](uint8_t* vectors, const BlockScales& s) { vectors[lane] = s.own[0], vectors[16 + lane] = s.own[1]; };
  for (size_t g = 0; g < columns / 32; ++g) {
    const BlockScales s = block_scales(f, row, g);
    const size_t super = g / 8, j = g % 8;
    switch (info(f).scales) {
      case Scales::kPlain:
      case Scales::kBrain: put_half(at + g * 32, s.scale); break;
      case Scales::kMin: put_half(at + g * 64, s.scale), put_half(at + g * 64 + 32, s.minimum); break;
      case Scales::kSuperMin:
      case Scales::kSuperHalfMin:
        if (j == 0) put_half(at + super * 320, s.scale), put_half(at + super * 320 + 32, s.minimum);
        put_own(at + super * 320 + 64 + 32 * j, s);
        break;
      case Scales::kSuper:
        if (j == 0) put_half(at + super * 160, s.scale);
        at[super * 160 + 32 + 16 * j + lane] = s.own[0];
        break;
      case Scales::kSuperHalf:
        if (j == 0) put_half(at + super * 288, s.scale);
        put_own(at + super * 288 + 32 + 32 * j, s);
        break;
      case Scales::kInSigns:
      case Scales::kSuperOnly:
        if (j == 0) put_half(at + super * 32, s.scale);
        break;
      case Scales::kHalfFloat8: put_own(at + g * 32, s); break;
      case Scales::kGroups:
      case Scales::kNone: break;
    }
  }
}

// The scales, unit included, and minima of a group's halves.
struct HalfScales { float scale[2], minimum[2]; };

HalfScales half_scales(Format f, const uint8_t* row, size_t g) {
  const FormatInfo& fi = info(f);
  const BlockScales s = block_scales(f, row, g);
  const float d = fi.unit * half_to_float(s.scale), minimum = half_to_float(s.minimum);
  const auto signed_own = [&](int i) { return static_cast<float>(static_cast<int8_t>(s.own[i])); };
  const auto both = [](float scale, float least) { return HalfScales{{scale, scale}, {least, least}}; };
  switch (fi.scales) {
    case Scales::kMin: return both(d, minimum);
    case Scales::kSuperMin: return both(d * signed_own(0), -minimum * signed_own(1));
    case Scales::kInSigns:
    case Scales::kSuper: return both(d * signed_own(0), 0.0f);
    case Scales::kSuperHalf: return {{d * signed_own(0), d * signed_own(1)}, {}};
    case Scales::kSuperHalfMin: {
      HalfScales halves;
      for (int i = 0; i < 2; ++i) {
        halves.scale[i] = d * static_cast<float>(s.own[i] & 15);
        halves.minimum[i] = -minimum * static_cast<float>(s.own[i] >> 4);
      }
      return halves;
    }
    case Scales::kBrain: return both(bfloat16_to_float(s.scale), 0.0f);
    case Scales::kHalfFloat8: return {{fi.unit * float8_to_float(s.own[0]), fi.unit * float8_to_float(s.own[1])}, {}};
    default: return both(d, 0.0f);
  }
}

// The value of an E4M3 number without infinities ("fn").
float e4m3_to_float(uint8_t code) {
  return (code & 0x7f) == 0x7f ? std::numeric_limits<float>::quiet_NaN() : float8_to_float(code);
}

void pack_group_scales(Format f, const GroupScales& of_row, size_t columns, const uint8_t* row, int lane, uint8_t* at) {
  const size_t group = columns / of_row.groups;
  for (size_t g = 0; g < of_row.groups; ++g, at += group_scale_bytes(of_row.zero)) {
    float scale = of_row.scale[g];
    // The kernels decode no NaN. One among the weights makes every output of its row NaN, and so does a scale.
    if (f == Format::F8_E4M3)
      for (size_t i = 0; i < group; ++i)
        if ((row[g * group + i] & 0x7f) == 0x7f) scale = std::numeric_limits<float>::quiet_NaN();
    std::memcpy(at + 4 * lane, &scale, 4);
    if (of_row.zero) at[4 * kTile + lane] = of_row.zero[g];
  }
}

}  // namespace

void dequantize_row(Format f, const uint8_t* blocks, size_t columns, float* out, const GroupScales& scales) {
  const FormatInfo& fi = info(f);
  if (f == Format::F32) {
    std::memcpy(out, blocks, columns * 4);
    return;
  }
  if (f == Format::F16 || f == Format::BF16) {
    for (size_t i = 0; i < columns; ++i) {
      uint16_t h;
      std::memcpy(&h, blocks + 2 * i, 2);
      out[i] = f == Format::F16 ? half_to_float(h) : bfloat16_to_float(h);
    }
    return;
  }
  if (f == Format::F8_E4M3) {
    for (size_t i = 0; i < columns; ++i) out[i] = e4m3_to_float(blocks[i]) * scales.scale[i / (columns / scales.groups)];
    return;
  }
  for (size_t g = 0; g < columns / 32; ++g) {
    uint32_t quad[8];
    group_quads(f, blocks, g, quad);
    uint8_t q[32];
    std::memcpy(q, quad, sizeof q);
    HalfScales s;
    int zero = fi.zero;
    if (fi.scales == Scales::kGroups) {
      const size_t group = 32 * g / (columns / scales.groups);
      s = {{scales.scale[group], scales.scale[group]}, {}};
      if (scales.zero) zero = scales.zero[group];
    } else {
      s = half_scales(f, blocks, g);
    }
    for (int i = 0; i < 32; ++i) {
      const int value = fi.table ? (*fi.table)[q[i]] : q[i] - zero;
      out[32 * g + i] = s.scale[i / 16] * static_cast<float>(value) + s.minimum[i / 16];
    }
  }
}

void pack_tile(Format f, size_t rows, size_t columns, const uint8_t* blocks, size_t first, uint8_t* codes, uint8_t* scales,
               const GroupScales& group_scales) {
  const FormatInfo& fi = info(f);
  const Matrix shape = packed_shape(f, rows, columns, group_scales);
  if (first + kTile > rows) {
    std::memset(codes, 0, shape.tile_codes);
    if (shape.tile_scales) std::memset(scales, 0, shape.tile_scales);
  }
  for (int lane = 0; lane < kTile && first + lane < rows; ++lane) {
    const uint8_t* row = blocks + (first + lane) * row_bytes(f, columns);
    if (fi.scales == Scales::kGroups) pack_group_scales(f, group_scales.from_row(first + lane), columns, row, lane, scales);
    if (fi.bits == 0) {
      const size_t width = dense_bytes(f);
      for (size_t k = 0; k < columns; ++k) std::memcpy(codes + (k * kTile + lane) * width, row + k * width, width);
      continue;
    }
    for (size_t g = 0; g < columns / 32; ++g) {
      uint32_t quad[8];
      group_quads(f, row, g, quad);
      if (fi.scales == Scales::kInSigns) put_in_signs(block_scales(f, row, g).own[0] >> 1, quad);
      put_quads(fi.bits, codes + g * code_bytes(fi.bits), lane, quad);
    }
    if (fi.scales != Scales::kGroups) pack_scales(f, columns, row, lane, scales);
  }
}

Matrix packed_shape(Format f, size_t rows, size_t columns, const GroupScales& group_scales) {
  const FormatInfo& fi = info(f);
  Matrix m{};
  m.format = f;
  m.rows = rows;
  m.columns = columns;
  m.tiles = (rows + kTile - 1) / kTile;
  m.tile_codes = fi.bits ? columns / kGroup * code_bytes(fi.bits) : columns * kTile * dense_bytes(f);
  m.scale_groups = group_scales.groups;
  m.zero_points = group_scales.zero != nullptr;
  m.tile_scales =
      fi.scales == Scales::kGroups ? m.scale_groups * group_scale_bytes(m.zero_points) : scale_bytes(fi.scales, columns);
  return m;
}

Weight::Weight(Format f, size_t count, size_t rows, size_t columns, const uint8_t* blocks, ThreadPool& pool,
               const GroupScales& scales, std::vector<float> factors)
    : count_(count), shape_(packed_shape(f, rows, columns, scales)), data_(huge_memory(bytes())), factors_(std::move(factors)) {
  const size_t matrix_blocks = rows * row_bytes(f, columns);
  pool.parallel_for(count_ * shape_.tiles, 8, [&](size_t begin, size_t end) {
    for (size_t t = begin; t < end; ++t) {
      const Matrix m = matrix(t / shape_.tiles);
      const size_t tile = t % shape_.tiles;
      pack_tile(f, rows, columns, blocks + t / shape_.tiles * matrix_blocks, tile * kTile,
                const_cast<uint8_t*>(m.codes) + tile * m.tile_codes, const_cast<uint8_t*>(m.scales) + tile * m.tile_scales,
                scales.from_row(t / shape_.tiles * rows));
    }
  });
}

Matrix Weight::matrix(size_t index) const {
  Matrix m = shape_;
  const size_t all_codes = count_ * shape_.tiles * shape_.tile_codes;
  m.codes = data_.get() + index * shape_.tiles * shape_.tile_codes;
  m.scales = data_.get() + all_codes + index * shape_.tiles * shape_.tile_scales;
  if (!factors_.empty()) m.factor = factors_[index];
  return m;
}

}  // namespace outrider
