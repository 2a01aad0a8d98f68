// AVX2 with byte products of 256 bits: AVX-VNNI (VEX), or AVX-512 VL and VNNI (EVEX), by the flags it is compiled with.
#pragma once
#define OUTRIDER_VNNI256
#include "simd/avx2.h"

namespace outrider::OUTRIDER_ISA {

// sum + the products of 4 unsigned by 4 signed bytes in each of 8 lanes; exact in 32 bits.
inline __m256i add_dot4(__m256i sum, __m256i unsigned_bytes, __m256i signed_bytes) {
#ifdef __AVXVNNI__
  return _mm256_dpbusd_avx_epi32(sum, unsigned_bytes, signed_bytes);
#else
  return _mm256_dpbusd_epi32(sum, unsigned_bytes, signed_bytes);
#endif
}

template <int kLargest> inline constexpr bool kUnsignedDot = true;
template <int kLargest> inline constexpr bool kByDigits = false;  // whether the operands are the digits of activations
// A conversion from integers occupies the two ports of the byte products; a subtraction has another one beside them.
inline constexpr bool kFloatSums = true;
inline F as_float(I x) { return {_mm256_castsi256_ps(x.a), _mm256_castsi256_ps(x.b)}; }
template <int kLargest> inline constexpr int kRowBlock = 4;
// sum[r] += the dot product of 4 * kCount columns, starting at quad `first` of 4 columns, with the activations x[r], per lane.
template <int kLargest, int kCount, class Quads, int kRows>
[[gnu::always_inline]] inline void dot_quads(const Quads& quads, int first, const int8_t* const (&x)[kRows], I (&sum)[kRows]) {
#pragma GCC unroll 8
  for (int j = 0; j < kCount; ++j) {
    const Codes w = quads(first + j);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const __m256i activation = four_bytes(x[r] + 4 * j);
      sum[r] = {add_dot4(sum[r].a, w.a, activation), add_dot4(sum[r].b, w.b, activation)};
      keep_order(sum[r]);
    }
  }
}

// Cached 8-bit codes of keys meet signed codes of a query, so VNNI takes them unsigned, larger by kKeyOffset.
inline constexpr int kKeyOffset = 128;
struct KeyCodes { __m256i a, b; };
inline KeyCodes key_codes(const int8_t* p) {
  const ValueCodes k = value_codes(p);
  const __m256i offset = _mm256_set1_epi8(-128);
  return {_mm256_xor_si256(k.a, offset), _mm256_xor_si256(k.b, offset)};
}
// sum + the dot products of each lane's codes with the same 4 of a query, or with the weights (0 .. 127) of 4 positions.
inline I add_scores(I sum, const KeyCodes& k, const int8_t* query) {
  const __m256i x = four_bytes(query);
  return {add_dot4(sum.a, k.a, x), add_dot4(sum.b, k.b, x)};
}
inline I add_weighted(I sum, const ValueCodes& v, const int8_t* weights) {
  const __m256i w = four_bytes(weights);
  return {add_dot4(sum.a, w, v.a), add_dot4(sum.b, w, v.b)};
}

}  // namespace outrider::OUTRIDER_ISA
