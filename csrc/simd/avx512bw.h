// AVX-512 without VNNI (F, BW, DQ, VL): products of bytes as in avx2.h, in vectors of 512 bits.
#pragma once
#define OUTRIDER_AVX512BW
#include "simd/avx512.h"

#include <algorithm>

namespace outrider::OUTRIDER_ISA {

inline __m512i four_bytes(const int8_t* p) {
  int32_t four;
  std::memcpy(&four, p, 4);
  return _mm512_set1_epi32(four);
}
// Pairs of products |w| * (sign(w) * x) in 16 bits.
inline __m512i signed_products(__m512i magnitude, __mmask64 negative, __m512i x) {
  return _mm512_maddubs_epi16(magnitude, _mm512_mask_sub_epi8(x, negative, _mm512_setzero_si512(), x));
}

// Weight codes as operands of maddubs: see byte_pairs.h.
struct Codes { __m512i v; };
template <int kLargest, int kZero> inline Codes codes(Bytes unsigned_codes) { return {unsigned_codes.v}; }

// 32 registers hold both kinds of sums of 8 rows, so each quad is unpacked once, on use.
inline constexpr int kMaxRows = OUTRIDER_MAX_ROWS, kMaxDenseRows = 4;  // rows that share one unpacking of a group
#define OUTRIDER_INLINE_ROWS [[gnu::always_inline]] inline
inline constexpr bool kUnpackOnce = false;
inline constexpr bool kFloatSums = false;  // see quads.h
template <int kLargest> inline constexpr int kRowBlock = kMaxRows;
template <int kLargest> inline constexpr bool kUnpackIntoMemory = false;

// Forces additions in the order written; otherwise the compiler adds in pairs and spills the products.
inline void keep_order(I& sum) { asm("" : "+v"(sum.v)); }
// narrow + the products of a quad with 4 activations, in pairs; without `narrow` for the first.
[[gnu::always_inline]] inline void add_pairs(I& narrow, bool first, const Codes& w, const int8_t* x) {
  const I products{_mm512_maddubs_epi16(w.v, four_bytes(x))};
  narrow = first ? products : I{_mm512_add_epi16(narrow.v, products.v)};
  keep_order(narrow);
}
// The sums of pairs of 16 bits, times `factor`.
[[gnu::always_inline]] inline I widened(const I& narrow, int16_t factor) {
  return {_mm512_madd_epi16(narrow.v, _mm512_set1_epi16(factor))};
}

}  // namespace outrider::OUTRIDER_ISA

#include "simd/byte_pairs.h"

namespace outrider::OUTRIDER_ISA {

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
  return iadd(sum, widened({signed_products(k.magnitude, k.negative, four_bytes(query))}, 1));
}
inline I add_weighted(I sum, const ValueCodes& v, const int8_t* weights) {
  return iadd(sum, widened({_mm512_maddubs_epi16(four_bytes(weights), v.v)}, 1));
}

}  // namespace outrider::OUTRIDER_ISA
