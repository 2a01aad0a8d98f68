// Dot products of codes with activations by maddubs, which multiplies unsigned by signed bytes and adds pairs of products in 16
// bits with saturation, for instruction sets without a byte product of 32 bits.
//
// To be included after the set's Codes, add_pairs() and widened().
#pragma once
#include <algorithm>

namespace outrider::OUTRIDER_ISA {

// The codes stay unsigned, and the kernel subtracts their zero point afterwards. Below 64, a pair is at most 2 * kLargest * 128, so
// kPairs pairs can be added in 16 bits without overflow. Larger ones are multiplied by the digits of the activations, at most 8.
template <int kLargest> inline constexpr bool kUnsignedDot = true;
template <int kLargest> inline constexpr bool kByDigits = kLargest > 63;
template <int kLargest> inline constexpr int kPairs = kLargest < 16 ? 8 : kLargest < 32 ? 4 : 2;

// sum[r] = the dot product of 4 * kCount columns, starting at quad `first` of 4 columns, with the activations x[r], per lane.
template <int kLargest, int kCount, class Quads, int kRows>
[[gnu::always_inline]] inline void dot_quads(const Quads& quads, int first, const int8_t* const (&x)[kRows], I (&sum)[kRows]) {
  constexpr int kStep = std::min(kPairs<kLargest>, kCount);
  static_assert(kStep * 2 * kLargest * 128 <= INT16_MAX);
#pragma GCC unroll 8
  for (int j = 0; j < kCount; j += kStep) {
    I narrow[kRows];
#pragma GCC unroll 8
    for (int i = j; i < j + kStep; ++i) {
      const Codes w = quads(first + i);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) add_pairs(narrow[r], i == j, w, x[r] + 4 * i);
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const I wide = widened(narrow[r], 1);
      sum[r] = j == 0 ? wide : iadd(sum[r], wide);
      keep_order(sum[r]);
    }
  }
}

// The same for a group of codes of 8 bits: 8 pairs of products with digits fit in 16 bits.
template <class Quads, int kRows>
[[gnu::always_inline]] inline void dot_digits(const Quads& quads, const ActivationDigits* const (&x)[kRows], I (&sum)[kRows]) {
  static_assert(8 * 2 * 255 * 8 <= INT16_MAX);
  I low[kRows], high[kRows];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    const Codes w = quads(i);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      add_pairs(low[r], i == 0, w, x[r]->low + 4 * i);
      add_pairs(high[r], i == 0, w, x[r]->high + 4 * i);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) sum[r] = iadd(widened(low[r], 1), widened(high[r], 16));
}

}  // namespace outrider::OUTRIDER_ISA
