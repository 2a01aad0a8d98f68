// AVX2, FMA, F16C: a vector of 16 lanes in two registers.
#pragma once
#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "weights/layout.h"

namespace outrider::OUTRIDER_ISA {

struct F { __m256 a, b; };       // 16 float32
struct I { __m256i a, b; };      // 16 int32
struct Bytes { __m256i a, b; };  // 64 uint8

inline F zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
inline F set1(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline F load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline void store(float* p, F x) {
  _mm256_storeu_ps(p, x.a);
  _mm256_storeu_ps(p + 8, x.b);
}
inline F add(F x, F y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
inline F sub(F x, F y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
inline F mul(F x, F y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
inline F div(F x, F y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
inline F fma(F x, F y, F z) { return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)}; }
// As the instruction does: y where the comparison is false, so a NaN in x is ignored.
inline F max(F x, F y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
inline F min(F x, F y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
inline F abs(F x) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_andnot_ps(sign, x.a), _mm256_andnot_ps(sign, x.b)};
}
// x where a < limit (false for NaN), else y.
inline F select_below(F a, F limit, F x, F y) {
  return {_mm256_blendv_ps(y.a, x.a, _mm256_cmp_ps(a.a, limit.a, _CMP_LT_OQ)),
          _mm256_blendv_ps(y.b, x.b, _mm256_cmp_ps(a.b, limit.b, _CMP_LT_OQ))};
}
// Whether x > y in any lane (false for NaN).
inline bool any_above(F x, F y) {
  const __m256 above = _mm256_or_ps(_mm256_cmp_ps(x.a, y.a, _CMP_GT_OQ), _mm256_cmp_ps(x.b, y.b, _CMP_GT_OQ));
  return _mm256_movemask_ps(above) != 0;
}

inline float reduce_max(F x) {
  const __m256 m = _mm256_max_ps(x.a, x.b);
  __m128 q = _mm_max_ps(_mm256_castps256_ps128(m), _mm256_extractf128_ps(m, 1));
  q = _mm_max_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_max_ss(q, _mm_shuffle_ps(q, q, 1)));
}

inline I izero() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
inline I iadd(I x, I y) { return {_mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b)}; }
inline I isub(I x, I y) { return {_mm256_sub_epi32(x.a, y.a), _mm256_sub_epi32(x.b, y.b)}; }
inline I ibroadcast(const int32_t* p) { return {_mm256_set1_epi32(*p), _mm256_set1_epi32(*p)}; }
inline I iload(const int32_t* p) {
  return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)), _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 8))};
}
inline I ixor(I x, I y, I z) {
  return {_mm256_xor_si256(_mm256_xor_si256(x.a, y.a), z.a), _mm256_xor_si256(_mm256_xor_si256(x.b, y.b), z.b)};
}
inline I iand(I x, uint32_t mask) {
  const __m256i m = _mm256_set1_epi32(static_cast<int32_t>(mask));
  return {_mm256_and_si256(x.a, m), _mm256_and_si256(x.b, m)};
}
template <int N> inline I ishift_right(I x) { return {_mm256_srli_epi32(x.a, N), _mm256_srli_epi32(x.b, N)}; }
template <int N> inline I ishift_left(I x) { return {_mm256_slli_epi32(x.a, N), _mm256_slli_epi32(x.b, N)}; }
struct Products { I low, high; };  // halves of the 64-bit products
inline Products imul_wide(I x, uint32_t factor) {
  const __m256i f = _mm256_set1_epi32(static_cast<int32_t>(factor));
  const __m256i even_a = _mm256_mul_epu32(x.a, f), odd_a = _mm256_mul_epu32(_mm256_srli_epi64(x.a, 32), f);
  const __m256i even_b = _mm256_mul_epu32(x.b, f), odd_b = _mm256_mul_epu32(_mm256_srli_epi64(x.b, 32), f);
  return {{_mm256_blend_epi32(even_a, _mm256_slli_epi64(odd_a, 32), 0xAA),
           _mm256_blend_epi32(even_b, _mm256_slli_epi64(odd_b, 32), 0xAA)},
          {_mm256_blend_epi32(_mm256_srli_epi64(even_a, 32), odd_a, 0xAA),
           _mm256_blend_epi32(_mm256_srli_epi64(even_b, 32), odd_b, 0xAA)}};
}
inline int32_t reduce_sum(I x) {
  const __m256i m = _mm256_add_epi32(x.a, x.b);
  __m128i q = _mm_add_epi32(_mm256_castsi256_si128(m), _mm256_extracti128_si256(m, 1));
  q = _mm_add_epi32(q, _mm_shuffle_epi32(q, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(q, _mm_shuffle_epi32(q, 0xb1)));
}
inline F to_float(I x) { return {_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)}; }
inline I round_to_int(F x) { return {_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b)}; }  // nearest, ties to even
inline I as_int(F x) { return {_mm256_castps_si256(x.a), _mm256_castps_si256(x.b)}; }      // the same bits
inline F pow2(I n) {
  const __m256i bias = _mm256_set1_epi32(127);
  return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n.a, bias), 23)),
          _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n.b, bias), 23))};
}
inline void store_int8(int8_t* p, I x) {  // the low byte of each lane
  const __m256i low_bytes = _mm256_setr_epi8(0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 0, 4, 8, 12, -1, -1, -1,
                                             -1, -1, -1, -1, -1, -1, -1, -1, -1);
  const __m256i both = _mm256_unpacklo_epi32(_mm256_shuffle_epi8(x.a, low_bytes), _mm256_shuffle_epi8(x.b, low_bytes));
  const __m128i bytes = _mm_unpacklo_epi32(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), bytes);
}

inline F load_f16(const uint16_t* p) {
  return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))),
          _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 8)))};
}
inline void store_f16(uint16_t* p, F x) {
  constexpr int kRounding = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(x.a, kRounding));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 8), _mm256_cvtps_ph(x.b, kRounding));
}
inline __m256 widen_bf16(const uint16_t* p) {
  const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}
inline F load_bf16(const uint16_t* p) { return {widen_bf16(p), widen_bf16(p + 8)}; }
inline F load_e4m3(const uint8_t* p) {  // divided by 256: the bits of a float16 with an exponent bias that is larger by 8
  const __m256i wide = _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  const __m256i sign = _mm256_slli_epi16(_mm256_and_si256(wide, _mm256_set1_epi16(0x80)), 8);
  const __m256i half = _mm256_or_si256(sign, _mm256_slli_epi16(_mm256_and_si256(wide, _mm256_set1_epi16(0x7f)), 7));
  return {_mm256_cvtph_ps(_mm256_castsi256_si128(half)), _mm256_cvtph_ps(_mm256_extracti128_si256(half, 1))};
}
inline F load_u8(const uint8_t* p) {
  return {_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)))),
          _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p + 8))))};
}
inline F load_i8(const uint8_t* p) {
  return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)))),
          _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p + 8))))};
}

// The low and the high 4 bits of 16 bytes.
inline I widen_u8(const uint8_t* p) {
  return {_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))),
          _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p + 8)))};
}
inline F load_low_u4(const uint8_t* p) {
  const I bytes = widen_u8(p);
  const __m256i mask = _mm256_set1_epi32(15);
  return to_float(I{_mm256_and_si256(bytes.a, mask), _mm256_and_si256(bytes.b, mask)});
}
inline F load_high_u4(const uint8_t* p) { return to_float(ishift_right<4>(widen_u8(p))); }
inline Bytes load_bytes(const uint8_t* p) {
  return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)), _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 32))};
}
inline Bytes and_bytes(Bytes x, uint8_t mask) {
  const __m256i m = _mm256_set1_epi8(static_cast<char>(mask));
  return {_mm256_and_si256(x.a, m), _mm256_and_si256(x.b, m)};
}
inline Bytes or_bytes(Bytes x, Bytes y) { return {_mm256_or_si256(x.a, y.a), _mm256_or_si256(x.b, y.b)}; }
// Shifts bits across byte borders; callers mask afterwards. by: left if positive, right if negative; a compile-time constant.
inline __m256i shift(__m256i x, int by) { return by < 0 ? _mm256_srli_epi16(x, -by) : _mm256_slli_epi16(x, by); }
inline Bytes shift(Bytes x, int by) { return {shift(x.a, by), shift(x.b, by)}; }

// table.v[code] for codes below 16.
inline Bytes look_up(const ByteTable& table, Bytes codes) {
  const __m256i values = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table.v)));
  return {_mm256_shuffle_epi8(values, codes.a), _mm256_shuffle_epi8(values, codes.b)};
}

inline void istore(int32_t* p, I x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), x.a);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 8), x.b);
}

// Weight codes as operands of byte products, which multiply unsigned by signed bytes: the codes stay unsigned, and the kernel
// subtracts their zero point afterwards.
struct Codes { __m256i a, b; };
template <int kLargest, int kZero> inline Codes codes(Bytes unsigned_codes) { return {unsigned_codes.a, unsigned_codes.b}; }
// The same 4 bytes in all lanes.
inline __m256i four_bytes(const int8_t* p) {
  int32_t four;
  std::memcpy(&four, p, 4);
  return _mm256_set1_epi32(four);
}

// Forces additions in the order written; otherwise the compiler adds in pairs and spills the products.
inline void keep_order(I& sum) { asm("" : "+x"(sum.a), "+x"(sum.b)); }

// 16 registers cannot hold a group's codes. Each quad is unpacked on use for a block of kRowBlock rows, whose sums stay in
// registers.
inline constexpr int kMaxRows = OUTRIDER_MAX_ROWS, kMaxDenseRows = 4;  // rows that share one unpacking of a group
#define OUTRIDER_INLINE_ROWS [[gnu::always_inline]] inline             // otherwise the sums are passed in memory
inline constexpr bool kUnpackOnce = false;
// Whether a group is unpacked into memory for several blocks of rows, each of which loads it again. Otherwise the compiler keeps
// quads on the stack, which costs less where their sums take more registers.
template <int kLargest> inline constexpr bool kUnpackIntoMemory = kLargest <= 15 || kLargest > 63;

// Attention's blocks of sums in registers: the most queries that share each load, and the vectors loaded for kQueries of them.
// Codes have two kinds of sums.
inline constexpr int kFloatQueries = 4, kCodeQueries = 4;
template <int kQueries> inline constexpr int kFloatVectors = kQueries > 1 ? 1 : 2;
template <int kQueries> inline constexpr int kCodeVectors = 1;

// Cached 8-bit codes of values, 4 for each lane, as operands of byte products with softmax weights, which are unsigned.
struct ValueCodes { __m256i a, b; };
inline ValueCodes value_codes(const int8_t* p) {
  return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)), _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 32))};
}

#ifndef OUTRIDER_VNNI256                   // avx_vnni.h has byte products of its own
inline constexpr bool kFloatSums = false;  // see quads.h
template <int kLargest> inline constexpr int kRowBlock = kLargest >= 63 ? 2 : 4;

// narrow + the products of a quad with 4 activations, in pairs; without `narrow` for the first.
[[gnu::always_inline]] inline void add_pairs(I& narrow, bool first, const Codes& w, const int8_t* x) {
  const __m256i activation = four_bytes(x);
  const I products{_mm256_maddubs_epi16(w.a, activation), _mm256_maddubs_epi16(w.b, activation)};
  narrow = first ? products : I{_mm256_add_epi16(narrow.a, products.a), _mm256_add_epi16(narrow.b, products.b)};
  keep_order(narrow);
}
// The sums of pairs of 16 bits, times `factor`.
[[gnu::always_inline]] inline I widened(const I& narrow, int16_t factor) {
  const __m256i f = _mm256_set1_epi16(factor);
  return {_mm256_madd_epi16(narrow.a, f), _mm256_madd_epi16(narrow.b, f)};
}

}  // namespace outrider::OUTRIDER_ISA

#include "simd/byte_pairs.h"

namespace outrider::OUTRIDER_ISA {

// Cached 8-bit codes of keys as operands of maddubs, which adds two products in 16 bits: with factors within +-127 no pair
// overflows. A key's sign moves to the query.
inline constexpr int kKeyOffset = 0;
struct KeyCodes { __m256i a, b, magnitude_a, magnitude_b; };
inline KeyCodes key_codes(const int8_t* p) {
  const ValueCodes k = value_codes(p);
  return {k.a, k.b, _mm256_abs_epi8(k.a), _mm256_abs_epi8(k.b)};
}
// sum + the dot products of each lane's codes with the same 4 of a query, or with the weights (0 .. 127) of 4 positions.
inline I add_scores(I sum, const KeyCodes& k, const int8_t* query) {
  const __m256i x = four_bytes(query);
  const I products{_mm256_maddubs_epi16(k.magnitude_a, _mm256_sign_epi8(x, k.a)),
                   _mm256_maddubs_epi16(k.magnitude_b, _mm256_sign_epi8(x, k.b))};
  return iadd(sum, widened(products, 1));
}
inline I add_weighted(I sum, const ValueCodes& v, const int8_t* weights) {
  const __m256i w = four_bytes(weights);
  return iadd(sum, widened({_mm256_maddubs_epi16(w, v.a), _mm256_maddubs_epi16(w, v.b)}, 1));
}
#endif

}  // namespace outrider::OUTRIDER_ISA
