// The packed layout of weights, which the kernels read.
//
// A matrix (rows, columns) is split into tiles of 16 rows: lane i of every vector belongs to row i of the tile, so kernels need
// no sum across lanes, and a row's result does not depend on the other rows.
//
// Quantized layouts store, per tile and per group of 32 columns, the codes as 8 "quads" (4 columns x 16 rows = 64
// bytes; byte 4 * row + column), packed in bit planes:
//   pairs         128 bytes: bits 2i, 2i+1 of byte b of vector h are byte b of quad 4h+i               (2 bits)
//   low nibbles   256 bytes: vector j holds quad 2j in its low and quad 2j + 1 in its high nibbles     (4, 5, 6 bits)
//   fifth bits     64 bytes: bit j of byte b is the fifth bit of byte b of quad j                      (5 bits)
//   upper pairs   128 bytes: bits 2i, 2i+1 of byte b of vector h are bits 4, 5 of byte b of quad 4h+i   (6 bits)
//   whole codes   512 bytes: vector j is quad j                                                        (8 bits)
// and separately, per tile, the scales as stored in the checkpoint (nothing is rounded again):
//   kPlain        per group: float16 scale x 16
//   kMin          per group: float16 scale x 16, float16 minimum x 16
//   kSuperMin     per 256 columns: float16 d x 16, float16 dmin x 16, then per group: uint8 scale x 16, uint8 minimum x 16
//   kSuper        per 256 columns: float16 d x 16, then per group: int8 scale x 16
//   kSuperHalf    per 256 columns: float16 d x 16, then per 16 columns: int8 scale x 16
//   kSuperHalfMin per 256 columns: float16 d x 16, float16 dmin x 16, then per 16 columns: scale and minimum x 16, in the low and
//                 the high 4 bits of a byte
//   kSuperOnly    per 256 columns: float16 scale x 16
//   kInSigns      per 256 columns: float16 d x 16; bit j of a group's 4-bit scale s, which stands for 1 + 2s, is in the codes, in
//   place
//                 of the sign of column 8j + 7, which makes the number of minus signs in columns 8j to 8j + 7 even
//   kBrain        per group: bfloat16 scale x 16, since float16 cannot hold every power of two of an exponent byte
//   kHalfFloat8   per 16 columns: E4M3 scale x 16, without a sign
//   kGroups       per scale group, any multiple of 32 columns or the whole row: float32 scale x 16, then, if the matrix has zero
//                 points, uint8 zero point x 16 in place of the format's
// A weight's value is unit * scale * (code - zero) + minimum, or unit * scale * table[code] for codes that number the values of a
// table; every factor is exact in float32. In kGroups it is the rounded product.
// A pass over the matrix reads codes and scales as two sequential streams, each once.
//
// Dense layouts (F32, F16, BF16, and the bytes of F8_E4M3, which have kGroups scales) are [tile][column][lane].
#pragma once
#include <cstddef>
#include <cstdint>

namespace outrider {

// The most rows that share one unpacking of a group, where the instruction set does not say otherwise. Test builds that take long
// to compile have fewer: the same source, and a kernel for each number of rows up to it.
#ifndef OUTRIDER_MAX_ROWS
#define OUTRIDER_MAX_ROWS 8
#endif

inline constexpr int kTile = 16, kGroup = 32, kSuper = 256;

enum class Format : uint8_t {
  F32,
  F16,
  BF16,
  Q4_0,
  Q4_1,
  Q5_0,
  Q5_1,
  Q8_0,
  Q4_K,
  Q5_K,
  Q6_K,
  IQ4_NL,
  IQ4_XS,
  MXFP4,
  NVFP4,
  IQ3_S,
  IQ3_XXS,
  Q3_K,
  Q2_K,
  TQ2_0,
  I2,
  I4,
  I8,
  F8_E4M3
};
enum class Scales : uint8_t {
  kNone,
  kPlain,
  kMin,
  kSuperMin,
  kSuper,
  kSuperHalf,
  kSuperHalfMin,
  kSuperOnly,
  kInSigns,
  kBrain,
  kHalfFloat8,
  kGroups
};

// The values that 4-bit codes number.
using ValueTable = int8_t[16];
constexpr ValueTable kIq4Values = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
constexpr ValueTable kTwiceE2m1 = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
constexpr ValueTable kOddValues = {1, 3, 5, 7, 9, 11, 13, 15, -1, -3, -5, -7, -9, -11, -13, -15};
constexpr ValueTable kIq3Values = {2, 6, 10, 14, 18, 22, 26, 31, -2, -6, -10, -14, -18, -22, -26, -31};

struct FormatInfo {
  const char* name;
  int bits;  // of a code; 0 for dense formats
  int zero;  // zero point: subtracted from a code, or what makes every value of the table unsigned
  Scales scales;
  int block;        // columns of a block in the checkpoint
  int block_bytes;  // bytes of such a block
  const ValueTable* table = nullptr;
  float unit = 1.0f;  // a power of two
};

constexpr FormatInfo kFormats[] = {
    {"F32", 0, 0, Scales::kNone, 1, 4},
    {"F16", 0, 0, Scales::kNone, 1, 2},
    {"BF16", 0, 0, Scales::kNone, 1, 2},
    {"Q4_0", 4, 8, Scales::kPlain, 32, 18},
    {"Q4_1", 4, 0, Scales::kMin, 32, 20},
    {"Q5_0", 5, 16, Scales::kPlain, 32, 22},
    {"Q5_1", 5, 0, Scales::kMin, 32, 24},
    {"Q8_0", 8, 128, Scales::kPlain, 32, 34},
    {"Q4_K", 4, 0, Scales::kSuperMin, 256, 144},
    {"Q5_K", 5, 0, Scales::kSuperMin, 256, 176},
    {"Q6_K", 6, 32, Scales::kSuperHalf, 256, 210},
    {"IQ4_NL", 4, 128, Scales::kPlain, 32, 18, &kIq4Values},
    {"IQ4_XS", 4, 128, Scales::kSuper, 256, 136, &kIq4Values},
    {"MXFP4", 4, 16, Scales::kBrain, 32, 17, &kTwiceE2m1},
    {"NVFP4", 4, 16, Scales::kHalfFloat8, 64, 36, &kTwiceE2m1, 0.5f},
    {"IQ3_S", 4, 16, Scales::kSuper, 256, 110, &kOddValues},
    {"IQ3_XXS", 4, 32, Scales::kInSigns, 256, 98, &kIq3Values, 0.5f},
    {"Q3_K", 4, 4, Scales::kSuperHalf, 256, 110},
    {"Q2_K", 2, 0, Scales::kSuperHalfMin, 256, 84},
    {"TQ2_0", 2, 1, Scales::kSuperOnly, 256, 66},
    // Codes alone, column 0 in the low bits, unsigned except I8. A block is the least number of columns of a scale group.
    {"I2", 2, 2, Scales::kGroups, 32, 8},
    {"I4", 4, 8, Scales::kGroups, 32, 16},
    {"I8", 8, 128, Scales::kGroups, 32, 32},
    {"F8_E4M3", 0, 0, Scales::kGroups, 32, 32},
};
constexpr int kFormatCount = sizeof(kFormats) / sizeof(kFormats[0]);
constexpr const FormatInfo& info(Format f) { return kFormats[static_cast<int>(f)]; }

// The largest unsigned operand that a code becomes in a dot product: the code itself, or its value in the table plus zero.
constexpr int largest_operand(const FormatInfo& f) {
  if (!f.table) return (1 << f.bits) - 1;
  int largest = 0;
  for (int value : *f.table) largest = value + f.zero > largest ? value + f.zero : largest;
  return largest;
}

// A table's values plus `offset` as bytes, to look codes up in.
struct ByteTable { uint8_t v[16]; };
constexpr ByteTable operands(const ValueTable& table, int offset) {
  ByteTable bytes{};
  for (int i = 0; i < 16; ++i) bytes.v[i] = static_cast<uint8_t>(table[i] + offset);
  return bytes;
}

// Whether each half of a group has a scale of its own.
constexpr bool scales_halves(Scales s) { return s == Scales::kSuperHalf || s == Scales::kSuperHalfMin || s == Scales::kHalfFloat8; }

// Bytes of one tile's codes per group of 32 columns.
constexpr size_t code_bytes(int bits) { return bits == 2 ? 128 : bits == 4 ? 256 : bits == 5 ? 320 : bits == 6 ? 384 : 512; }
// Bytes of one weight of a dense layout.
constexpr size_t dense_bytes(Format f) { return info(f).block_bytes / info(f).block; }
// Bytes of one scale group of a tile.
constexpr size_t group_scale_bytes(bool zero_points) { return kTile * (zero_points ? 5 : 4); }
// Bytes of one tile's scales for `columns` columns; 0 for kGroups.
constexpr size_t scale_bytes(Scales s, size_t columns) {
  switch (s) {
    case Scales::kPlain:
    case Scales::kBrain:
    case Scales::kHalfFloat8: return columns / kGroup * 32;
    case Scales::kMin: return columns / kGroup * 64;
    case Scales::kSuperMin:
    case Scales::kSuperHalfMin: return columns / kSuper * 320;
    case Scales::kInSigns:
    case Scales::kSuperOnly: return columns / kSuper * 32;
    case Scales::kSuper: return columns / kSuper * 160;
    case Scales::kSuperHalf: return columns / kSuper * 288;
    case Scales::kGroups:
    case Scales::kNone: break;
  }
  return 0;
}

// The scales of a kGroups format as the checkpoint stores them beside the codes, (rows, groups) each; `zero` is null where the
// format's own zero point applies. Counts from the unsigned code, which for I8 is the stored byte + 128.
struct GroupScales {
  const float* scale = nullptr;
  const uint8_t* zero = nullptr;
  size_t groups = 0;
  GroupScales from_row(size_t row) const { return {scale + row * groups, zero ? zero + row * groups : nullptr, groups}; }
};

// Where a tile's codes and scales begin.
struct Tile { const uint8_t *codes, *scales; };

// A packed matrix, as kernels see it. Padding rows of the last tile are zero.
struct Matrix {
  Format format;
  size_t rows, columns, tiles;
  const uint8_t* codes;   // [tile][...], `tile_codes` bytes each
  const uint8_t* scales;  // [tile][...], `tile_scales` bytes each
  size_t tile_codes, tile_scales;
  size_t scale_groups;  // of a row, in kGroups
  bool zero_points;     // whether the matrix has its own, in kGroups
  float factor = 1.0f;  // of all weights: an output is the sum times it

  Tile tile(size_t number) const { return {codes + number * tile_codes, scales + number * tile_scales}; }
};

// 32 columns of a quantized activation row; codes[i] * scale approximates the float32 value. All that a kernel needs of them is
// in one cache line: fewer addresses, and fewer lines to move between cores.
struct alignas(64) ActivationGroup {
  int8_t codes[kGroup];
  float scale;        // largest magnitude of the group / 127
  float scaled_sum;   // scale * sum of the codes
  float half_sum[2];  // sum of the codes of each half group, an integer
  int32_t sum;        // of the codes, for the zero points 1 and 32
  int32_t times2;     // 2 * sum of the codes, for the zero point 2
  int32_t times8;     // 8 * sum of the codes, for the zero points 8 and 16
  int32_t times128;   // 128 * sum of the codes, for the zero point 128
};

// A group's codes as digits: code = low + 16 * high. low is within -8 .. 7, high within -8 .. 8.
struct alignas(64) ActivationDigits { int8_t low[kGroup], high[kGroup]; };

// One row: its groups, and their digits, which only some kernels read.
struct QuantizedRow {
  const ActivationGroup* groups;
  const ActivationDigits* digits;
  const ActivationGroup& operator[](int group) const { return groups[group]; }
};

// What `call`, a lambda with the format as its template parameter, returns for a quantized format; {} for others.
template <class Call> inline auto for_quantized(Format f, Call call) -> decltype(call.template operator()<Format::Q4_0>()) {
  switch (f) {
    case Format::Q4_0: return call.template operator()<Format::Q4_0>();
    case Format::Q4_1: return call.template operator()<Format::Q4_1>();
    case Format::Q5_0: return call.template operator()<Format::Q5_0>();
    case Format::Q5_1: return call.template operator()<Format::Q5_1>();
    case Format::Q8_0: return call.template operator()<Format::Q8_0>();
    case Format::Q4_K: return call.template operator()<Format::Q4_K>();
    case Format::Q5_K: return call.template operator()<Format::Q5_K>();
    case Format::Q6_K: return call.template operator()<Format::Q6_K>();
    case Format::IQ4_NL: return call.template operator()<Format::IQ4_NL>();
    case Format::IQ4_XS: return call.template operator()<Format::IQ4_XS>();
    case Format::MXFP4: return call.template operator()<Format::MXFP4>();
    case Format::NVFP4: return call.template operator()<Format::NVFP4>();
    case Format::IQ3_S: return call.template operator()<Format::IQ3_S>();
    case Format::IQ3_XXS: return call.template operator()<Format::IQ3_XXS>();
    case Format::Q3_K: return call.template operator()<Format::Q3_K>();
    case Format::Q2_K: return call.template operator()<Format::Q2_K>();
    case Format::TQ2_0: return call.template operator()<Format::TQ2_0>();
    case Format::I2: return call.template operator()<Format::I2>();
    case Format::I4: return call.template operator()<Format::I4>();
    case Format::I8: return call.template operator()<Format::I8>();
    default: return {};
  }
}

}  // namespace outrider
