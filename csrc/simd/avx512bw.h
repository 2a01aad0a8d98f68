// AVX-512 without VNNI (F, BW, DQ, VL): products of bytes as in avx2.h, in vectors of 512 bits.
#pragma once
#define OUTRIDER_AVX512BW
#include "simd/avx512.h"

#include <algorithm>

namespace outrider::OUTRIDER_ISA {

// As in avx2.h: bit 7 of the sum is the parity of the other signs.
inline I even_signs(I codes) {
  const __m512i others = _mm512_and_si512(codes.v, _mm512_set1_epi32(0x08888888));
  const __m512i sum = _mm512_madd_epi16(_mm512_maddubs_epi16(others, _mm512_set1_epi8(17)), _mm512_set1_epi16(1));
  return {_mm512_ternarylogic_epi32(_mm512_set1_epi32(INT32_MIN), _mm512_slli_epi32(sum, 24), codes.v, 0xCA)};
}

inline __m512i four_bytes(const int8_t* p) {
  int32_t four;
  std::memcpy(&four, p, 4);
  return _mm512_set1_epi32(four);
}
// Pairs of products |w| * (sign(w) * x) in 16 bits.
inline __m512i signed_products(__m512i magnitude, __mmask64 negative, __m512i x) {
  return _mm512_maddubs_epi16(magnitude, _mm512_mask_sub_epi8(x, negative, _mm512_setzero_si512(), x));
}
inline __m512i add_pairs(__m512i products) { return _mm512_madd_epi16(products, _mm512_set1_epi16(1)); }

// Weight codes as operands of maddubs: see avx2.h, which has the bounds that keep sums within 16 bits.
template <int kLargest> inline constexpr bool kUnsignedDot = kLargest < 64;
template <int kLargest> inline constexpr bool kAnyActivation = kLargest < 64;  // whether activations of -128 are multiplied exactly
template <int kLargest> inline constexpr int kPairs = kLargest < 16 ? 8 : kLargest < 32 ? 4 : kLargest < 64 ? 2 : 1;
struct Codes { __m512i v; };
template <int kLargest, int kZero> inline Codes codes(Bytes x) {
  if constexpr (kUnsignedDot<kLargest>) return {x.v};
  return {_mm512_sub_epi8(x.v, _mm512_set1_epi8(static_cast<char>(kZero)))};
}
template <int kLargest> inline __m512i pair_products(__m512i w, __m512i x) {
  if constexpr (kUnsignedDot<kLargest>) return _mm512_maddubs_epi16(w, x);
  return signed_products(_mm512_abs_epi8(w), _mm512_movepi8_mask(w), x);
}

// 32 registers hold both kinds of sums of 8 rows, so each quad is unpacked once, on use.
inline constexpr int kMaxRows = 8, kMaxDenseRows = 4;  // rows that share one unpacking of a group
#define OUTRIDER_INLINE_ROWS [[gnu::always_inline]] inline
inline constexpr bool kUnpackOnce = false;
inline constexpr bool kFloatSums = false;  // see quads.h
template <int kLargest> inline constexpr int kRowBlock = kMaxRows;
template <int kLargest> inline constexpr bool kUnpackPerRowBlock = false;
// sum[r] = the dot product of 4 * kCount columns, starting at quad `first` of 4 columns, with the activations x[r], per lane.
// See kAnyActivation.
template <int kLargest, int kCount, class Quads, int kRows>
[[gnu::always_inline]] inline void dot_quads(const Quads& quads, int first, const int8_t* const (&x)[kRows], I (&sum)[kRows]) {
  constexpr int kStep = std::min(kPairs<kLargest>, kCount);
  static_assert(!kUnsignedDot<kLargest> || kStep * 2 * kLargest * 128 <= INT16_MAX);
#pragma GCC unroll 8
  for (int j = 0; j < kCount; j += kStep) {
    __m512i narrow[kRows];
#pragma GCC unroll 8
    for (int i = j; i < j + kStep; ++i) {
      const Codes w = quads(first + i);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        const __m512i products = pair_products<kLargest>(w.v, four_bytes(x[r] + 4 * i));
        narrow[r] = i == j ? products : _mm512_add_epi16(narrow[r], products);
        asm("" : "+v"(narrow[r]));  // forces additions in the order written
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) sum[r] = j == 0 ? I{add_pairs(narrow[r])} : iadd(sum[r], {add_pairs(narrow[r])});
  }
}

// Cached 8-bit codes as in avx2.h: a key's sign moves to the query; softmax weights are unsigned.
inline constexpr int kKeyOffset = 0;
struct KeyCodes {
  __m512i magnitude;
  __mmask64 negative;
};
struct ValueCodes { __m512i v; };
inline KeyCodes key_codes(const int8_t* p) {
  const __m512i k = _mm512_loadu_si512(p);
  return {_mm512_abs_epi8(k), _mm512_movepi8_mask(k)};
}
inline ValueCodes value_codes(const int8_t* p) { return {_mm512_loadu_si512(p)}; }
// sum + the dot products of each lane's codes with the same 4 of a query, or with the weights (0 .. 127) of 4 positions.
inline I add_scores(I sum, const KeyCodes& k, const int8_t* query) {
  return iadd(sum, {add_pairs(signed_products(k.magnitude, k.negative, four_bytes(query)))});
}
inline I add_weighted(I sum, const ValueCodes& v, const int8_t* weights) {
  return iadd(sum, {add_pairs(_mm512_maddubs_epi16(four_bytes(weights), v.v))});
}

}  // namespace outrider::OUTRIDER_ISA
