// Plain C++, lane by lane: slow, and the reference that the other instruction sets must match bit for bit.
#pragma once
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "runtime/fused.h"
#include "weights/half.h"
#include "weights/layout.h"

namespace outrider::OUTRIDER_ISA {

struct F { float v[16]; };
struct I { int32_t v[16]; };
struct Bytes { uint8_t v[64]; };

template <class Fn> inline F each(Fn fn) {
  F r;
  for (int i = 0; i < 16; ++i) r.v[i] = fn(i);
  return r;
}
template <class Fn> inline I each_int(Fn fn) {
  I r;
  for (int i = 0; i < 16; ++i) r.v[i] = fn(i);
  return r;
}
template <class Fn> inline Bytes each_byte(Fn fn) {
  Bytes r;
  for (int i = 0; i < 64; ++i) r.v[i] = static_cast<uint8_t>(fn(i));
  return r;
}

inline F zero() {
  return each([](int) { return 0.0f; });
}
inline F set1(float x) {
  return each([=](int) { return x; });
}
inline F load(const float* p) {
  return each([=](int i) { return p[i]; });
}
inline void store(float* p, F a) { std::memcpy(p, a.v, sizeof a.v); }
inline F add(F a, F b) {
  return each([&](int i) { return a.v[i] + b.v[i]; });
}
inline F sub(F a, F b) {
  return each([&](int i) { return a.v[i] - b.v[i]; });
}
inline F mul(F a, F b) {
  return each([&](int i) { return a.v[i] * b.v[i]; });
}
inline F div(F a, F b) {
  return each([&](int i) { return a.v[i] / b.v[i]; });
}
inline F fma(F a, F b, F c) {
  return each([&](int i) { return reproducible::fma(a.v[i], b.v[i], c.v[i]); });
}
inline F max(F a, F b) {
  return each([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
}
inline F min(F a, F b) {
  return each([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
}
inline F abs(F a) {
  return each([&](int i) { return std::fabs(a.v[i]); });
}
inline F select_below(F a, F limit, F x, F y) {
  return each([&](int i) { return a.v[i] < limit.v[i] ? x.v[i] : y.v[i]; });
}

inline bool any_above(F a, F b) {
  for (int i = 0; i < 16; ++i)
    if (a.v[i] > b.v[i]) return true;
  return false;
}

inline float reduce_max(F a) {
  float best = a.v[0];
  for (int i = 1; i < 16; ++i) best = a.v[i] > best ? a.v[i] : best;
  return best;
}

inline I izero() {
  return each_int([](int) { return 0; });
}
inline I iadd(I a, I b) {
  return each_int([&](int i) { return a.v[i] + b.v[i]; });
}
inline I isub(I a, I b) {
  return each_int([&](int i) { return a.v[i] - b.v[i]; });
}
inline I ibroadcast(const int32_t* p) {
  return each_int([=](int) { return *p; });
}
inline I iload(const int32_t* p) {
  return each_int([=](int i) { return p[i]; });
}
inline I ixor(I a, I b, I c) {
  return each_int([&](int i) { return a.v[i] ^ b.v[i] ^ c.v[i]; });
}
inline I iand(I a, uint32_t mask) {
  return each_int([&](int i) { return static_cast<int32_t>(static_cast<uint32_t>(a.v[i]) & mask); });
}
template <int N> inline I ishift_right(I a) {
  return each_int([&](int i) { return static_cast<int32_t>(static_cast<uint32_t>(a.v[i]) >> N); });
}
template <int N> inline I ishift_left(I a) {
  return each_int([&](int i) { return static_cast<int32_t>(static_cast<uint32_t>(a.v[i]) << N); });
}
struct Products { I low, high; };  // halves of the 64-bit products
inline Products imul_wide(I a, uint32_t factor) {
  Products r;
  for (int i = 0; i < 16; ++i) {
    const uint64_t product = uint64_t{static_cast<uint32_t>(a.v[i])} * factor;
    r.low.v[i] = static_cast<int32_t>(product);
    r.high.v[i] = static_cast<int32_t>(product >> 32);
  }
  return r;
}
inline I as_int(F a) {  // the same bits
  I r;
  std::memcpy(r.v, a.v, sizeof r.v);
  return r;
}
inline int32_t reduce_sum(I a) {
  uint32_t sum = 0;
  for (int i = 0; i < 16; ++i) sum += static_cast<uint32_t>(a.v[i]);
  return static_cast<int32_t>(sum);
}
inline F to_float(I a) {
  return each([&](int i) { return static_cast<float>(a.v[i]); });
}
inline I round_to_int(F a) {
  // Out of range or NaN gives x86's "integer indefinite" value, as on all instruction sets.
  return each_int(
      [&](int i) { return std::fabs(a.v[i]) < 2147483648.0f ? static_cast<int32_t>(std::nearbyintf(a.v[i])) : INT32_MIN; });
}
inline F pow2(I n) {
  return each([&](int i) {
    const uint32_t bits = (static_cast<uint32_t>(n.v[i]) + 127u) << 23;
    float r;
    std::memcpy(&r, &bits, 4);
    return r;
  });
}
inline void store_int8(int8_t* p, I a) {
  for (int i = 0; i < 16; ++i) p[i] = static_cast<int8_t>(a.v[i]);
}

inline F load_f16(const uint16_t* p) {
  return each([=](int i) { return half_to_float(p[i]); });
}
inline void store_f16(uint16_t* p, F a) {
  for (int i = 0; i < 16; ++i) p[i] = float_to_half(a.v[i]);
}
inline F load_bf16(const uint16_t* p) {
  return each([=](int i) { return bfloat16_to_float(p[i]); });
}
inline F load_e4m3(const uint8_t* p) {  // divided by 256: the bits of a float16 with an exponent bias that is larger by 8
  return each([=](int i) { return half_to_float(static_cast<uint16_t>((p[i] & 0x80) << 8 | (p[i] & 0x7f) << 7)); });
}
inline F load_u8(const uint8_t* p) {
  return each([=](int i) { return static_cast<float>(p[i]); });
}
inline F load_i8(const uint8_t* p) {
  return each([=](int i) { return static_cast<float>(static_cast<int8_t>(p[i])); });
}

inline F load_low_u4(const uint8_t* p) {
  return each([=](int i) { return static_cast<float>(p[i] & 15); });
}
inline F load_high_u4(const uint8_t* p) {
  return each([=](int i) { return static_cast<float>(p[i] >> 4); });
}
inline Bytes load_bytes(const uint8_t* p) {
  return each_byte([=](int i) { return p[i]; });
}
inline Bytes and_bytes(Bytes a, uint8_t mask) {
  return each_byte([&](int i) { return a.v[i] & mask; });
}
inline Bytes or_bytes(Bytes a, Bytes b) {
  return each_byte([&](int i) { return a.v[i] | b.v[i]; });
}
// by: left if positive, right if negative.
inline Bytes shift(Bytes a, int by) {
  return each_byte([&](int i) { return by < 0 ? a.v[i] >> -by : a.v[i] << by; });
}

// table.v[code] for codes below 16.
inline Bytes look_up(const ByteTable& table, Bytes codes) {
  return each_byte([&](int i) { return table.v[codes.v[i]]; });
}

inline void istore(int32_t* p, I a) { std::memcpy(p, a.v, sizeof a.v); }

template <int kLargest> inline constexpr bool kUnsignedDot = false;  // codes() subtracts the zero point
template <int kLargest> inline constexpr bool kByDigits = false;     // whether the operands are the digits of activations
struct Codes { int16_t v[64]; };
inline void keep_in_register(Codes&) {}
template <int kLargest, int kZero> inline Codes codes(Bytes b) {
  Codes r;
  for (int i = 0; i < 64; ++i) r.v[i] = static_cast<int8_t>(b.v[i] - kZero);
  return r;
}
// The dot product of 16 columns, starting at quad `first` of 4 columns, with 16 activations, per lane.
template <class Quads> inline I dot16(const Quads& quads, int first, const int8_t* x) {
  return each_int([&](int i) {
    int32_t sum = 0;
    for (int k = 0; k < 16; ++k) sum += quads(first + k / 4).v[4 * i + k % 4] * x[k];
    return sum;
  });
}

// Rows that share one unpacking of a group. More would bring nothing without vector registers and take minutes to compile.
inline constexpr int kMaxRows = 2, kMaxDenseRows = 2;
#define OUTRIDER_INLINE_ROWS inline
inline constexpr bool kUnpackOnce = true;
inline constexpr bool kFloatSums = false;  // see quads.h
template <int kLargest> inline constexpr int kRowBlock = 1;
template <int kLargest> inline constexpr bool kUnpackIntoMemory = false;
// sum[r] = the dot product of 4 * kCount columns, starting at quad `first` of 4 columns, with the activations x[r], per lane.
template <int kLargest, int kCount, class Quads, int kRows>
inline void dot_quads(const Quads& quads, int first, const int8_t* const (&x)[kRows], I (&sum)[kRows]) {
  for (int r = 0; r < kRows; ++r) {
    sum[r] = dot16(quads, first, x[r]);
    if constexpr (kCount == 8) sum[r] = iadd(sum[r], dot16(quads, first + 4, x[r] + 16));
  }
}

// Cached 8-bit codes, 4 for each lane, as operands of dot products.
inline constexpr int kKeyOffset = 0;
struct KeyCodes { int8_t v[64]; };
using ValueCodes = KeyCodes;
inline KeyCodes key_codes(const int8_t* p) {
  KeyCodes k;
  std::memcpy(k.v, p, sizeof k.v);
  return k;
}
inline ValueCodes value_codes(const int8_t* p) { return key_codes(p); }
// sum + the dot products of each lane's codes with the same 4 of a query, or with the weights (0 .. 127) of 4 positions.
inline I add_scores(I sum, const KeyCodes& k, const int8_t* query) {
  return each_int([&](int i) {
    return sum.v[i] + k.v[4 * i] * query[0] + k.v[4 * i + 1] * query[1] + k.v[4 * i + 2] * query[2] + k.v[4 * i + 3] * query[3];
  });
}
inline I add_weighted(I sum, const ValueCodes& v, const int8_t* weights) { return add_scores(sum, v, weights); }

// Attention's blocks of sums in registers: the most queries that share each load, and the vectors loaded for kQueries of them.
// Codes have two kinds of sums.
inline constexpr int kFloatQueries = 2, kCodeQueries = 2;
template <int kQueries> inline constexpr int kFloatVectors = 1;
template <int kQueries> inline constexpr int kCodeVectors = 1;

}  // namespace outrider::OUTRIDER_ISA
