// NEON with the matrix products of FEAT_I8MM, for pairs of activation rows.
#pragma once
#define OUTRIDER_I8MM
#include "simd/neon.h"

namespace outrider::OUTRIDER_ISA {

// A block of rows shares each zipped quad. Counted, not timed: of 8 rows in blocks of 4 and of 6 rows in one block it takes fewer
// instructions than the dot products of neon.h, up to 4 rows about as many.
inline constexpr bool kUnpackOnce = false;
template <int kLargest> inline constexpr int kRowBlock = 6;

inline int8x16_t zip_low(int8x16_t a, int8x16_t b) {
  return vreinterpretq_s8_s32(vzip1q_s32(vreinterpretq_s32_s8(a), vreinterpretq_s32_s8(b)));
}
inline int8x16_t zip_high(int8x16_t a, int8x16_t b) {
  return vreinterpretq_s8_s32(vzip2q_s32(vreinterpretq_s32_s8(a), vreinterpretq_s32_s8(b)));
}

// sum[r] = the dot product of 4 * kCount columns, starting at quad `first` of 4 columns, with the activations x[r], per lane.
// A matrix product takes 8 columns of two lanes, which are two quads zipped, and of two rows: it replaces two dot products, and
// from two pairs of rows on that is more than zipping adds.
template <int kLargest, int kCount, class Quads, int kRows>
[[gnu::always_inline]] inline void dot_quads(const Quads& quads, int first, const int8_t* const (&x)[kRows], I (&sum)[kRows]) {
  constexpr int kPairs = kRows >= 4 ? kRows / 2 : 0;
  if constexpr (kPairs > 0) {
    int32x4_t low[kPairs][4], high[kPairs][4];  // of lanes 4 i and 4 i + 1, and of the next two; each with both rows
#pragma GCC unroll 8
    for (int p = 0; p < kPairs; ++p)
#pragma GCC unroll 8
      for (int i = 0; i < 4; ++i) low[p][i] = high[p][i] = vdupq_n_s32(0);
#pragma GCC unroll 8
    for (int j = 0; j < kCount; j += 2) {
      int8x16_t two[kPairs];
#pragma GCC unroll 8
      for (int p = 0; p < kPairs; ++p) two[p] = vcombine_s8(vld1_s8(x[2 * p] + 4 * j), vld1_s8(x[2 * p + 1] + 4 * j));
      const Codes left = quads(first + j), right = quads(first + j + 1);
#pragma GCC unroll 8
      for (int i = 0; i < 4; ++i) {
        const int8x16_t w_low = zip_low(left.v[i], right.v[i]), w_high = zip_high(left.v[i], right.v[i]);
#pragma GCC unroll 8
        for (int p = 0; p < kPairs; ++p) {
          low[p][i] = vmmlaq_s32(low[p][i], w_low, two[p]);
          high[p][i] = vmmlaq_s32(high[p][i], w_high, two[p]);
        }
      }
    }
#pragma GCC unroll 8
    for (int p = 0; p < kPairs; ++p) {
      sum[2 * p] = quarters<I>([&](int i) { return vuzp1q_s32(low[p][i], high[p][i]); });
      sum[2 * p + 1] = quarters<I>([&](int i) { return vuzp2q_s32(low[p][i], high[p][i]); });
    }
  }
#pragma GCC unroll 8
  for (int r = 2 * kPairs; r < kRows; ++r) {
    sum[r] = dot16(quads, first, x[r]);
    if constexpr (kCount == 8) sum[r] = iadd(sum[r], dot16(quads, first + 4, x[r] + 16));
  }
}

}  // namespace outrider::OUTRIDER_ISA
