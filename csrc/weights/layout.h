// The packed layout of weights, which the kernels read.
//
// A matrix (rows, columns) is split into tiles of 16 rows: lane i of every vector belongs to row i of the tile, so kernels need
// no sum across lanes, and a row's result does not depend on the other rows.
//
// Quantized layouts store, per tile and per group of 32 columns, the codes as 8 "quads" (4 columns x 16 rows = 64
// bytes; byte 4 * row + column), packed in bit planes:
//   pairs         128 bytes: bits 2i, 2i+1 of byte b of vector h are byte b of quad 4h+i                (2 bits)
//   low nibbles   256 bytes: vector j holds quad 2j in its low and quad 2j + 1 in its high nibbles     (4, 5, 6 bits)
//   fifth bits     64 bytes: bit j of byte b is the fifth bit of byte b of quad j                      (5 bits)
//   upper pairs   128 bytes: bits 2i, 2i+1 of byte b of vector h are bits 4, 5 of byte b of quad 4h+i   (6 bits)
//   whole codes   512 bytes: vector j is quad j                                                        (8 bits)
// and separately, per tile, the scales as stored in the checkpoint (nothing is rounded again):
//   kPlain        per group: float16 scale x 16
//   kMin          per group: float16 scale x 16, float16 minimum x 16
//   kSuperMin     per 256 columns: float16 d x 16, float16 dmin x 16, then per group: uint8 scale x 16, uint8 minimum x 16
//   kSuperHalf    per 256 columns: float16 d x 16, then per 16 columns: int8 scale x 16
//   kGroups       per scale group, any multiple of 32 columns or the whole row: float32 scale x 16, then, if the matrix has zero
//                 points, uint8 zero point x 16 in place of the format's
// A weight's value is scale * (code - zero) + minimum, every factor exact in float32. In kGroups it is the rounded product.
// A pass over the matrix reads codes and scales as two sequential streams, each once.
//
// Dense layouts (F32, F16, BF16, and the bytes of F8_E4M3, which have kGroups scales) are [tile][column][lane].
#pragma once
#include <cstddef>
#include <cstdint>

namespace outrider {

inline constexpr int kTile = 16, kGroup = 32, kSuper = 256;

enum class Format : uint8_t { F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K, I2, I4, I8, F8_E4M3 };
enum class Scales : uint8_t { kNone, kPlain, kMin, kSuperMin, kSuperHalf, kGroups };

struct FormatInfo {
  const char* name;
  int bits;  // of a code; 0 for dense formats
  int zero;  // zero point, subtracted from a code
  Scales scales;
  int block;        // columns of a block in the checkpoint
  int block_bytes;  // bytes of such a block
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
    // Codes alone, column 0 in the low bits, unsigned except I8. A block is the least number of columns of a scale group.
    {"I2", 2, 2, Scales::kGroups, 32, 8},
    {"I4", 4, 8, Scales::kGroups, 32, 16},
    {"I8", 8, 128, Scales::kGroups, 32, 32},
    {"F8_E4M3", 0, 0, Scales::kGroups, 32, 32},
};
constexpr int kFormatCount = sizeof(kFormats) / sizeof(kFormats[0]);
constexpr const FormatInfo& info(Format f) { return kFormats[static_cast<int>(f)]; }

// Bytes of one tile's codes per group of 32 columns.
constexpr size_t code_bytes(int bits) { return bits == 2 ? 128 : bits == 4 ? 256 : bits == 5 ? 320 : bits == 6 ? 384 : 512; }
// Bytes of one weight of a dense layout.
constexpr size_t dense_bytes(Format f) { return info(f).block_bytes / info(f).block; }
// Bytes of one scale group of a tile.
constexpr size_t group_scale_bytes(bool zero_points) { return kTile * (zero_points ? 5 : 4); }
// Bytes of one tile's scales for `columns` columns; not of kGroups.
constexpr size_t scale_bytes(Scales s, size_t columns) {
  switch (s) {
    case Scales::kPlain: return columns / kGroup * 32;
    case Scales::kMin: return columns / kGroup * 64;
    case Scales::kSuperMin: return columns / kSuper * 320;
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

// A packed matrix, as kernels see it. Padding rows of the last tile are zero.
struct Matrix {
  Format format;
  size_t rows, columns, tiles;
  const uint8_t* codes;   // [tile][...], `tile_codes` bytes each
  const uint8_t* scales;  // [tile][...], `tile_scales` bytes each
  size_t tile_codes, tile_scales;
  size_t scale_groups;  // of a row, in kGroups
  bool zero_points;     // whether the matrix has its own, in kGroups

  const uint8_t* codes_of(size_t tile) const { return codes + tile * tile_codes; }
};

// 32 columns of a quantized activation row; codes[i] * scale approximates the float32 value. All that a kernel needs of them is
// in one cache line: fewer addresses, and fewer lines to move between cores.
struct alignas(64) ActivationGroup {
  int8_t codes[kGroup];
  float scale;        // largest magnitude of the group / 127
  float scaled_sum;   // scale * sum of the codes
  float half_sum[2];  // sum of the codes of each half group, an integer
  int32_t times2;     // 2 * sum of the codes, for the zero point 2
  int32_t times8;     // 8 * sum of the codes, for the zero points 8 and 16
  int32_t times128;   // 128 * sum of the codes, for the zero point 128
};

// The groups of one row, contiguous.
using QuantizedRow = const ActivationGroup*;

}  // namespace outrider
