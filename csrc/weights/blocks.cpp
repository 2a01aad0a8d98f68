#include "weights/blocks.h"

#include <bit>
#include <cstring>

#include "weights/grids.h"

namespace outrider {
namespace {

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

uint16_t half_at(const uint8_t* p) {
  uint16_t half;
  std::memcpy(&half, p, 2);
  return half;
}

// 32 codes in 16 bytes: the first half in the low nibbles, the second in the high ones.
void nibble_quads(const uint8_t* q, uint32_t (&quad)[8]) {
  for (int k = 0; k < 4; ++k) {
    const uint32_t word = word_at(q + 4 * k);
    quad[k] = word & kNibbles, quad[k + 4] = (word >> 4) & kNibbles;
  }
}

// Moves bit i of the lowest four bits to bit 8i.
uint32_t spread(uint32_t bits) { return ((bits & 15) * 0x00204081u) & kOnes; }

// The codes of a codebook's entry, one per byte.
uint32_t magnitudes(uint32_t entry) { return (entry & 7) | (entry >> 3 & 7) << 8 | (entry >> 6 & 7) << 16 | (entry >> 9) << 24; }

// 2^(exponent - 128) as bfloat16; the two smallest are subnormal.
uint16_t brain_of_exponent(uint8_t exponent) {
  return static_cast<uint16_t>(exponent < 2 ? 0x20 << exponent : (exponent - 1) << 7);
}

// An E4M3 scale without its sign. As in GGML, 0x7f counts as 0, and 0xff as a number.
uint8_t positive_float8(uint8_t bits) { return bits == 0x7f ? 0 : bits & 0x7f; }

// The 6-bit scale n of a Q3_K block, from the 12 bytes that store 16.
uint8_t q3_k_scale(const uint8_t* q, int n) {
  return static_cast<uint8_t>(((q[n % 8] >> (n / 8 * 4) & 15) | (q[8 + n % 4] >> (n / 4 * 2) & 3) << 4) - 32);
}

}  // namespace

void group_quads(Format f, const uint8_t* row, size_t g, uint32_t (&quad)[8]) {
  const FormatInfo& fi = info(f);
  const uint8_t* b = row + g * 32 / fi.block * fi.block_bytes;
  const int j = static_cast<int>(g % 8);  // group within a super-block of 256
  switch (f) {
    case Format::Q4_0:
    case Format::Q4_1:
    case Format::Q5_0:
    case Format::Q5_1: {
      nibble_quads(b + fi.block_bytes - 16, quad);
      if (fi.bits == 5) {
        const uint32_t high = word_at(b + fi.block_bytes - 20);
        for (int k = 0; k < 8; ++k) quad[k] |= spread(high >> (4 * k)) << 4;
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
    case Format::IQ4_NL:
    case Format::MXFP4: nibble_quads(b + fi.block_bytes - 16, quad); break;
    case Format::IQ4_XS: nibble_quads(b + 8 + 16 * j, quad); break;
    case Format::NVFP4:  // 16 columns in 8 bytes
      for (int k = 0; k < 8; ++k) {
        const uint32_t word = word_at(b + 4 + 16 * (g % 2) + 8 * (k / 4) + 4 * (k % 2));
        quad[k] = (word >> (k / 2 % 2 * 4)) & kNibbles;
      }
      break;
    case Format::IQ3_S:
      for (int k = 0; k < 8; ++k) {
        const int entry = b[2 + 8 * j + k] | ((b[66 + j] >> k & 1) << 8);
        quad[k] = magnitudes(kIq3sGrid[entry]) | spread(b[74 + 4 * j + k / 2] >> (k % 2 * 4)) << 3;
      }
      break;
    case Format::IQ3_XXS: {
      const uint32_t word = word_at(b + 66 + 4 * j);
      for (int k = 0; k < 8; ++k) {
        const uint32_t seven = word >> (7 * (k / 2)) & 127;  // the eighth sign makes the number of minus signs even
        const uint32_t signs = seven | (std::popcount(seven) & 1u) << 7;
        quad[k] = magnitudes(kIq3xxsGrid[b[2 + 8 * j + k]]) | spread(signs >> (k % 2 * 4)) << 3;
      }
      break;
    }
    case Format::Q3_K:  // halves of 128 columns: 32 bytes of low pairs; the third bits of all in 32 bytes
      for (int k = 0; k < 8; ++k)
        quad[k] = ((word_at(b + 32 + 32 * (j / 4) + 4 * k) >> (2 * (j % 4))) & kPairs) | ((word_at(b + 4 * k) >> j) & kOnes) << 2;
      break;
    case Format::Q2_K:
    case Format::TQ2_0:  // halves of 128 columns: 32 bytes of pairs
      for (int k = 0; k < 8; ++k) {
        const uint8_t* q = b + (f == Format::Q2_K ? 16 : 0) + 32 * (j / 4);
        quad[k] = (word_at(q + 4 * k) >> (2 * (j % 4))) & kPairs;
      }
      break;
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

BlockScales block_scales(Format f, const uint8_t* row, size_t g) {
  const FormatInfo& fi = info(f);
  const uint8_t* b = row + g * 32 / fi.block * fi.block_bytes;
  const int j = static_cast<int>(g % 8);  // group within a super-block of 256
  switch (f) {
    case Format::Q4_1:
    case Format::Q5_1: return {half_at(b), half_at(b + 2), {}};
    case Format::Q4_K:
    case Format::Q5_K: {
      BlockScales s{half_at(b), half_at(b + 2), {}};
      unpack_scale(b + 4, j, s.own[0], s.own[1]);
      return s;
    }
    case Format::Q6_K: return {half_at(b + 208), 0, {b[192 + 2 * j], b[193 + 2 * j]}};
    case Format::IQ4_XS: {
      const int low = b[4 + j / 2] >> (j % 2 * 4) & 15, high = half_at(b + 2) >> (2 * j) & 3;
      return {half_at(b), 0, {static_cast<uint8_t>((low | high << 4) - 32), 0}};
    }
    case Format::MXFP4: return {brain_of_exponent(b[0]), 0, {}};
    case Format::NVFP4: {
      const uint8_t* scale = b + g % 2 * 2;
      return {0, 0, {positive_float8(scale[0]), positive_float8(scale[1])}};
    }
    case Format::IQ3_S: return {half_at(b), 0, {static_cast<uint8_t>(1 + 2 * (b[106 + j / 2] >> (j % 2 * 4) & 15)), 0}};
    case Format::IQ3_XXS: return {half_at(b), 0, {static_cast<uint8_t>(1 + 2 * (b[69 + 4 * j] >> 4)), 0}};
    case Format::Q3_K: return {half_at(b + 108), 0, {q3_k_scale(b + 96, 2 * j), q3_k_scale(b + 96, 2 * j + 1)}};
    case Format::Q2_K: return {half_at(b + 80), half_at(b + 82), {b[2 * j], b[2 * j + 1]}};
    case Format::TQ2_0: return {half_at(b + 64), 0, {}};
    default: return {half_at(b), 0, {}};
  }
}

}  // namespace outrider
