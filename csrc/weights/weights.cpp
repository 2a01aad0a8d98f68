#include "weights/weights.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "weights/half.h"
#include "weights/huge_pages.h"
#include "runtime/threads.h"

namespace outrider {
namespace {

float half_at(const uint8_t* p) {
  uint16_t h;
  std::memcpy(&h, p, 2);
  return half_to_float(h);
}

// The 6-bit scale and minimum of sub-block j of a Q4_K or Q5_K block, from the 12 bytes that store 8 of each.
void unpack_scale(const uint8_t* q, int j, uint8_t& scale, uint8_t& minimum) {
  if (j < 4) {
    scale = q[j] & 63;
    minimum = q[j + 4] & 63;
  } else {
    scale = (q[j + 4] & 15) | ((q[j - 4] >> 6) << 4);
    minimum = (q[j + 4] >> 4) | ((q[j] >> 6) << 4);
  }
}

uint32_t word_at(const uint8_t* p) {
  uint32_t word;
  std::memcpy(&word, p, 4);
  return word;
}

// Masks for words of four codes, one per byte. After a right shift the mask removes the bits of the next byte; left shifts of
// masked codes stay within their byte.
constexpr uint32_t kOnes = 0x01010101u, kPairs = 0x03030303u, kNibbles = 0x0f0f0f0fu, kSigns = 0x80808080u;

// The unsigned codes of the 32 columns of group g of a checkpoint row: column 4k + i is byte i of quad k. The block formats are
// GGML's.
void group_quads(Format f, const uint8_t* row, size_t g, uint32_t (&quad)[8]) {
  const FormatInfo& fi = info(f);
  const uint8_t* b = row + g * 32 / fi.block * fi.block_bytes;
  const int j = static_cast<int>(g % 8);  // group within a super-block of 256
  switch (f) {
    case Format::Q4_0:
    case Format::Q4_1:
    case Format::Q5_0:
    case Format::Q5_1: {
      const uint8_t* q = b + fi.block_bytes - 16;
      for (int k = 0; k < 4; ++k) {
        const uint32_t word = word_at(q + 4 * k);
        quad[k] = word & kNibbles, quad[k + 4] = (word >> 4) & kNibbles;
      }
      if (fi.bits == 5) {
        const uint32_t high = word_at(q - 4);
        // The multiplication moves bit i of four bits to bit 8i.
        for (int k = 0; k < 8; ++k) quad[k] |= (((high >> (4 * k) & 15) * 0x00204081u) & kOnes) << 4;
      }
      break;
    }
    case Format::Q8_0:
      for (int k = 0; k < 8; ++k) quad[k] = word_at(b + 2 + 4 * k) ^ kSigns;  // int8 + 128
      break;
    case Format::Q4_K:
    case Format::Q5_K: {
      const uint8_t *q = b + fi.block_bytes - 128 + 32 * (j / 2), *high = b + 16;
      for (int k = 0; k < 8; ++k) {
        quad[k] = (word_at(q + 4 * k) >> (j % 2 * 4)) & kNibbles;
        if (f == Format::Q5_K) quad[k] |= ((word_at(high + 4 * k) >> j) & kOnes) << 4;
      }
      break;
    }
    case Format::Q6_K: {  // halves of 128 columns: 64 bytes of low nibbles, 32 bytes of upper pairs
      const int h = j / 4, quarter = j % 4;
      const uint8_t *low = b + 64 * h + 32 * (quarter % 2), *high = b + 128 + 32 * h;
      for (int k = 0; k < 8; ++k)
        quad[k] =
            ((word_at(low + 4 * k) >> (quarter / 2 * 4)) & kNibbles) | (((word_at(high + 4 * k) >> (2 * quarter)) & kPairs) << 4);
      break;
    }
    case Format::I2:
      for (int k = 0; k < 8; ++k) {
        const uint32_t four = b[k];
        quad[k] = (four | four << 6 | four << 12 | four << 18) & kPairs;
      }
      break;
    case Format::I4:
      for (int k = 0; k < 8; ++k) {
        const uint32_t four = b[2 * k] | b[2 * k + 1] << 8;
        quad[k] = ((four | four << 8) & 0x00ff00ffu);
        quad[k] = (quad[k] | quad[k] << 4) & kNibbles;
      }
      break;
    case Format::I8:
      for (int k = 0; k < 8; ++k) quad[k] = word_at(b + 4 * k) ^ kSigns;  // int8 + 128
      break;
    default: break;
  }
}

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

void pack_scales(Format f, size_t columns, const uint8_t* row, int lane, uint8_t* at) {
  const FormatInfo& fi = info(f);
  for (size_t g = 0; g < columns / 32; ++g) {
    const uint8_t* b = row + g * 32 / fi.block * fi.block_bytes;
    const int j = static_cast<int>(g % 8);
    switch (fi.scales) {
      case Scales::kPlain: std::memcpy(at + g * 32 + 2 * lane, b, 2); break;
      case Scales::kMin:
        std::memcpy(at + g * 64 + 2 * lane, b, 2);
        std::memcpy(at + g * 64 + 32 + 2 * lane, b + 2, 2);
        break;
      case Scales::kSuperMin: {
        uint8_t* s = at + g / 8 * 320;
        if (j == 0) std::memcpy(s + 2 * lane, b, 2), std::memcpy(s + 32 + 2 * lane, b + 2, 2);
        unpack_scale(b + 4, j, s[64 + 32 * j + lane], s[64 + 32 * j + 16 + lane]);
        break;
      }
      case Scales::kSuperHalf: {
        uint8_t* s = at + g / 8 * 288;
        if (j == 0) std::memcpy(s + 2 * lane, b + 208, 2);
        s[32 + 32 * j + lane] = b[192 + 2 * j];
        s[32 + 32 * j + 16 + lane] = b[192 + 2 * j + 1];
        break;
      }
      case Scales::kGroups:
      case Scales::kNone: break;
    }
  }
}

// The value of an E4M3 number without infinities ("fn"): a float16 of the same mantissa has a bias that is larger by 8.
float e4m3_to_float(uint8_t code) {
  if ((code & 0x7f) == 0x7f) return std::numeric_limits<float>::quiet_NaN();
  return 256.0f * half_to_float(static_cast<uint16_t>((code & 0x80) << 8 | (code & 0x7f) << 7));
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
    const uint8_t* b = blocks + g * 32 / fi.block * fi.block_bytes;
    const int j = static_cast<int>(g % 8);
    uint32_t quad[8];
    group_quads(f, blocks, g, quad);
    uint8_t q[32];
    std::memcpy(q, quad, sizeof q);
    int zero_point = fi.zero;
    float scale[2], minimum = 0.0f;
    if (fi.scales == Scales::kSuperHalf) {
      const float d = half_at(b + 208);
      for (int h = 0; h < 2; ++h) scale[h] = d * static_cast<float>(static_cast<int8_t>(b[192 + 2 * j + h]));
    } else if (fi.scales == Scales::kSuperMin) {
      uint8_t s, m;
      unpack_scale(b + 4, j, s, m);
      scale[0] = scale[1] = half_at(b) * static_cast<float>(s);
      minimum = -half_at(b + 2) * static_cast<float>(m);
    } else if (fi.scales == Scales::kGroups) {
      const size_t group = 32 * g / (columns / scales.groups);
      scale[0] = scale[1] = scales.scale[group];
      if (scales.zero) zero_point = scales.zero[group];
    } else {
      scale[0] = scale[1] = half_at(b);
      if (fi.scales == Scales::kMin) minimum = half_at(b + 2);
    }
    for (int i = 0; i < 32; ++i) out[32 * g + i] = scale[i / 16] * static_cast<float>(q[i] - zero_point) + minimum;
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
               const GroupScales& scales)
    : count_(count), shape_(packed_shape(f, rows, columns, scales)), data_(huge_memory(bytes())) {
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
  return m;
}

}  // namespace outrider
