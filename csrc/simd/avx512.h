// AVX-512 (F, BW, DQ, VL, VNNI): a vector of 16 lanes in one register.
#pragma once
#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "weights/layout.h"

namespace outrider::OUTRIDER_ISA {

struct F { __m512 v; };       // 16 float32
struct I { __m512i v; };      // 16 int32
struct Bytes { __m512i v; };  // 64 uint8

inline F zero() { return {_mm512_setzero_ps()}; }
inline F set1(float x) { return {_mm512_set1_ps(x)}; }
inline F load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline void store(float* p, F a) { _mm512_storeu_ps(p, a.v); }
inline F add(F a, F b) { return {_mm512_add_ps(a.v, b.v)}; }
inline F sub(F a, F b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline F mul(F a, F b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline F div(F a, F b) { return {_mm512_div_ps(a.v, b.v)}; }
inline F fma(F a, F b, F c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
// As the instruction does: b where the comparison is false, so a NaN in a is ignored.
inline F max(F a, F b) { return {_mm512_max_ps(a.v, b.v)}; }
inline F min(F a, F b) { return {_mm512_min_ps(a.v, b.v)}; }
inline F abs(F a) { return {_mm512_abs_ps(a.v)}; }
// x where a < limit (false for NaN), else y.
inline F select_below(F a, F limit, F x, F y) {
  return {_mm512_mask_mov_ps(y.v, _mm512_cmp_ps_mask(a.v, limit.v, _CMP_LT_OQ), x.v)};
}

// Whether a > b in any lane (false for NaN).
inline bool any_above(F a, F b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ) != 0; }

inline float reduce_max(F a) { return _mm512_reduce_max_ps(a.v); }

inline I izero() { return {_mm512_setzero_si512()}; }
inline I iadd(I a, I b) { return {_mm512_add_epi32(a.v, b.v)}; }
inline I isub(I a, I b) { return {_mm512_sub_epi32(a.v, b.v)}; }
inline I ibroadcast(const int32_t* p) { return {_mm512_set1_epi32(*p)}; }
inline I iload(const int32_t* p) { return {_mm512_loadu_si512(p)}; }
inline I ixor(I a, I b, I c) { return {_mm512_ternarylogic_epi32(a.v, b.v, c.v, 0x96)}; }
inline I iand(I a, uint32_t mask) { return {_mm512_and_si512(a.v, _mm512_set1_epi32(static_cast<int32_t>(mask)))}; }
template <int N> inline I ishift_right(I a) { return {_mm512_srli_epi32(a.v, N)}; }
template <int N> inline I ishift_left(I a) { return {_mm512_slli_epi32(a.v, N)}; }
struct Products { I low, high; };  // halves of the 64-bit products
inline Products imul_wide(I a, uint32_t factor) {
  const __m512i f = _mm512_set1_epi32(static_cast<int32_t>(factor));
  const __m512i even = _mm512_mul_epu32(a.v, f), odd = _mm512_mul_epu32(_mm512_srli_epi64(a.v, 32), f);
  return {{_mm512_mask_shuffle_epi32(even, 0xAAAA, odd, _MM_PERM_CCAA)},
          {_mm512_mask_shuffle_epi32(odd, 0x5555, even, _MM_PERM_DDBB)}};
}
inline I as_int(F a) { return {_mm512_castps_si512(a.v)}; }  // the same bits
inline int32_t reduce_sum(I a) { return _mm512_reduce_add_epi32(a.v); }
inline F to_float(I a) { return {_mm512_cvtepi32_ps(a.v)}; }
inline I round_to_int(F a) { return {_mm512_cvtps_epi32(a.v)}; }  // nearest, ties to even
inline F pow2(I n) { return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(n.v, _mm512_set1_epi32(127)), 23))}; }
inline void store_int8(int8_t* p, I a) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(a.v)); }

inline F load_f16(const uint16_t* p) { return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))}; }
inline void store_f16(uint16_t* p, F a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
inline F load_bf16(const uint16_t* p) {
  const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(wide, 16))};
}
inline F load_e4m3(const uint8_t* p) {  // divided by 256: the bits of a float16 with an exponent bias that is larger by 8
  const __m256i wide = _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  const __m256i sign = _mm256_slli_epi16(_mm256_and_si256(wide, _mm256_set1_epi16(0x80)), 8);
  const __m256i rest = _mm256_slli_epi16(_mm256_and_si256(wide, _mm256_set1_epi16(0x7f)), 7);
  return {_mm512_cvtph_ps(_mm256_or_si256(sign, rest))};
}
inline F load_u8(const uint8_t* p) {
  return {_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))))};
}
inline F load_i8(const uint8_t* p) {
  return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))))};
}

// The low and the high 4 bits of 16 bytes.
inline F load_low_u4(const uint8_t* p) {
  const __m512i bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  return {_mm512_cvtepi32_ps(_mm512_and_si512(bytes, _mm512_set1_epi32(15)))};
}
inline F load_high_u4(const uint8_t* p) {
  const __m512i bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  return {_mm512_cvtepi32_ps(_mm512_srli_epi32(bytes, 4))};
}
inline Bytes load_bytes(const uint8_t* p) { return {_mm512_loadu_si512(p)}; }
inline Bytes and_bytes(Bytes a, uint8_t mask) { return {_mm512_and_si512(a.v, _mm512_set1_epi8(static_cast<char>(mask)))}; }
inline Bytes or_bytes(Bytes a, Bytes b) { return {_mm512_or_si512(a.v, b.v)}; }
// Shifts bits across byte borders; callers mask afterwards. by: left if positive, right if negative; a compile-time constant.
inline Bytes shift(Bytes a, int by) { return {by < 0 ? _mm512_srli_epi16(a.v, -by) : _mm512_slli_epi16(a.v, by)}; }

// table.v[code] for codes below 16.
inline Bytes look_up(const ByteTable& table, Bytes codes) {
  const __m128i values = _mm_loadu_si128(reinterpret_cast<const __m128i*>(table.v));
  return {_mm512_shuffle_epi8(_mm512_broadcast_i32x4(values), codes.v)};
}

inline void istore(int32_t* p, I a) { _mm512_storeu_si512(p, a.v); }
#ifndef OUTRIDER_AVX512BW  // avx512bw.h has byte products of its own

// Weight codes as operands of VNNI, which multiplies unsigned by signed bytes: the codes stay unsigned, and the kernel subtracts
// their zero point afterwards.
template <int kLargest> inline constexpr bool kUnsignedDot = true;
template <int kLargest> inline constexpr bool kByDigits = false;  // whether the operands are the digits of activations
struct Codes { __m512i v; };
template <int kLargest, int kZero> inline Codes codes(Bytes unsigned_codes) { return {unsigned_codes.v}; }
// Forces the codes to stay in a register; otherwise the compiler reloads them for each row.
inline void keep_in_register(Codes& w) { asm("" : "+v"(w.v)); }
// Broadcasts the activations as a memory operand: separate loads occupy the reorder buffer and limit out-of-order execution.
inline I add_dot4(I sum, Codes w, const int8_t* x) {
  asm("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(sum.v) : "v"(w.v), "m"(*reinterpret_cast<const int32_t*>(x)));
  return sum;
}
// 32 registers hold all codes of a group, which are unpacked once for all rows.
inline constexpr int kMaxRows = OUTRIDER_MAX_ROWS, kMaxDenseRows = 4;  // rows that share one unpacking of a group
#define OUTRIDER_INLINE_ROWS inline
inline constexpr bool kUnpackOnce = true;
inline constexpr bool kFloatSums = false;  // see quads.h
template <int kLargest> inline constexpr int kRowBlock = 1;
template <int kLargest> inline constexpr bool kUnpackIntoMemory = false;
// sum[r] = the dot product of 4 * kCount columns, starting at quad `first` of 4 columns, with the activations x[r], per lane.
// A whole group is summed in two independent chains to hide the instruction's latency.
template <int kLargest, int kCount, class Quads, int kRows>
inline void dot_quads(const Quads& quads, int first, const int8_t* const (&x)[kRows], I (&sum)[kRows]) {
  for (int r = 0; r < kRows; ++r) {
    I low = izero(), high = izero();
    for (int j = 0; j < 4; ++j) {
      low = add_dot4(low, quads(first + j), x[r] + 4 * j);
      if constexpr (kCount == 8) high = add_dot4(high, quads(first + 4 + j), x[r] + 16 + 4 * j);
    }
    sum[r] = kCount == 8 ? iadd(low, high) : low;
  }
}

// Cached 8-bit codes, 4 for each lane, as operands of byte dot products. Codes of keys meet signed codes of a query, so VNNI takes
// them unsigned, larger by kKeyOffset; codes of values meet softmax weights, which are unsigned themselves.
inline constexpr int kKeyOffset = 128;
struct KeyCodes { __m512i v; };
struct ValueCodes { __m512i v; };
inline KeyCodes key_codes(const int8_t* p) { return {_mm512_xor_si512(_mm512_loadu_si512(p), _mm512_set1_epi8(-128))}; }
inline ValueCodes value_codes(const int8_t* p) { return {_mm512_loadu_si512(p)}; }
// sum + the dot products of each lane's codes with the same 4 of a query, or with the weights (0 .. 127) of 4 positions.
inline I add_scores(I sum, KeyCodes k, const int8_t* query) {
  int32_t four;
  std::memcpy(&four, query, 4);
  return {_mm512_dpbusd_epi32(sum.v, k.v, _mm512_set1_epi32(four))};
}
inline I add_weighted(I sum, ValueCodes v, const int8_t* weights) {
  int32_t four;
  std::memcpy(&four, weights, 4);
  return {_mm512_dpbusd_epi32(sum.v, _mm512_set1_epi32(four), v.v)};
}
#endif

// Attention's blocks of sums in registers: the most queries that share each load, and the vectors loaded for kQueries of them.
// Codes have two kinds of sums.
inline constexpr int kFloatQueries = 8, kCodeQueries = 4;
template <int kQueries> inline constexpr int kFloatVectors = kQueries > 2 ? 2 : 4;
template <int kQueries> inline constexpr int kCodeVectors = kQueries > 2 ? 2 : 4;

}  // namespace outrider::OUTRIDER_ISA
