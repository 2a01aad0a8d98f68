// AArch64 with the dot-product extension: a vector of 16 lanes in four registers.
#pragma once
#include <arm_neon.h>

#include <cmath>
#include <cstdint>
#include <cstring>

#include "weights/layout.h"

namespace outrider::OUTRIDER_ISA {

struct F { float32x4_t v[4]; };     // 16 float32
struct I { int32x4_t v[4]; };       // 16 int32
struct Bytes { uint8x16_t v[4]; };  // 64 uint8

template <class R, class Fn> inline R quarters(Fn fn) { return {{fn(0), fn(1), fn(2), fn(3)}}; }

inline F zero() {
  return quarters<F>([](int) { return vdupq_n_f32(0.0f); });
}
inline F set1(float x) {
  return quarters<F>([=](int) { return vdupq_n_f32(x); });
}
inline F load(const float* p) {
  return quarters<F>([=](int i) { return vld1q_f32(p + 4 * i); });
}
inline void store(float* p, F a) {
  for (int i = 0; i < 4; ++i) vst1q_f32(p + 4 * i, a.v[i]);
}
inline F add(F a, F b) {
  return quarters<F>([&](int i) { return vaddq_f32(a.v[i], b.v[i]); });
}
inline F sub(F a, F b) {
  return quarters<F>([&](int i) { return vsubq_f32(a.v[i], b.v[i]); });
}
inline F mul(F a, F b) {
  return quarters<F>([&](int i) { return vmulq_f32(a.v[i], b.v[i]); });
}
inline F div(F a, F b) {
  return quarters<F>([&](int i) { return vdivq_f32(a.v[i], b.v[i]); });
}
inline F fma(F a, F b, F c) {
  return quarters<F>([&](int i) { return vfmaq_f32(c.v[i], a.v[i], b.v[i]); });
}
// b where the comparison is false, so a NaN in a is ignored; vmaxq_f32 and vminq_f32 would propagate it.
inline F max(F a, F b) {
  return quarters<F>([&](int i) { return vbslq_f32(vcgtq_f32(a.v[i], b.v[i]), a.v[i], b.v[i]); });
}
inline F min(F a, F b) {
  return quarters<F>([&](int i) { return vbslq_f32(vcltq_f32(a.v[i], b.v[i]), a.v[i], b.v[i]); });
}
inline F abs(F a) {
  return quarters<F>([&](int i) { return vabsq_f32(a.v[i]); });
}
// x where a < limit (false for NaN), else y.
inline F select_below(F a, F limit, F x, F y) {
  return quarters<F>([&](int i) { return vbslq_f32(vcltq_f32(a.v[i], limit.v[i]), x.v[i], y.v[i]); });
}
// Whether a > b in any lane (false for NaN).
inline bool any_above(F a, F b) {
  uint32x4_t above = vcgtq_f32(a.v[0], b.v[0]);
  for (int i = 1; i < 4; ++i) above = vorrq_u32(above, vcgtq_f32(a.v[i], b.v[i]));
  return vmaxvq_u32(above) != 0;
}
inline float reduce_max(F a) {
  const F m = max(F{{a.v[0], a.v[1], a.v[0], a.v[1]}}, F{{a.v[2], a.v[3], a.v[2], a.v[3]}});
  float lanes[8];
  vst1q_f32(lanes, m.v[0]);
  vst1q_f32(lanes + 4, m.v[1]);
  float best = lanes[0];
  for (int i = 1; i < 8; ++i) best = lanes[i] > best ? lanes[i] : best;
  return best;
}

inline I izero() {
  return quarters<I>([](int) { return vdupq_n_s32(0); });
}
inline I iadd(I a, I b) {
  return quarters<I>([&](int i) { return vaddq_s32(a.v[i], b.v[i]); });
}
inline I isub(I a, I b) {
  return quarters<I>([&](int i) { return vsubq_s32(a.v[i], b.v[i]); });
}
inline I ibroadcast(const int32_t* p) {
  return quarters<I>([=](int) { return vdupq_n_s32(*p); });
}
inline I iload(const int32_t* p) {
  return quarters<I>([=](int i) { return vld1q_s32(p + 4 * i); });
}
inline I ixor(I a, I b, I c) {
  return quarters<I>([&](int i) { return veorq_s32(veorq_s32(a.v[i], b.v[i]), c.v[i]); });
}
inline I iand(I a, uint32_t mask) {
  return quarters<I>([&](int i) { return vandq_s32(a.v[i], vdupq_n_s32(static_cast<int32_t>(mask))); });
}
template <int N> inline I ishift_right(I a) {
  return quarters<I>([&](int i) { return vreinterpretq_s32_u32(vshrq_n_u32(vreinterpretq_u32_s32(a.v[i]), N)); });
}
template <int N> inline I ishift_left(I a) {
  return quarters<I>([&](int i) { return vshlq_n_s32(a.v[i], N); });
}
struct Products { I low, high; };  // halves of the 64-bit products
inline Products imul_wide(I a, uint32_t factor) {
  Products r;
  for (int i = 0; i < 4; ++i) {
    const uint32x4_t x = vreinterpretq_u32_s32(a.v[i]), f = vdupq_n_u32(factor);
    const int32x4_t first = vreinterpretq_s32_u64(vmull_u32(vget_low_u32(x), vget_low_u32(f)));
    const int32x4_t second = vreinterpretq_s32_u64(vmull_high_u32(x, f));
    r.low.v[i] = vuzp1q_s32(first, second);
    r.high.v[i] = vuzp2q_s32(first, second);
  }
  return r;
}
inline I as_int(F a) {
  return quarters<I>([&](int i) { return vreinterpretq_s32_f32(a.v[i]); });
}  // the same bits
inline int32_t reduce_sum(I a) { return vaddvq_s32(vaddq_s32(vaddq_s32(a.v[0], a.v[1]), vaddq_s32(a.v[2], a.v[3]))); }
inline F to_float(I a) {
  return quarters<F>([&](int i) { return vcvtq_f32_s32(a.v[i]); });
}
// Nearest, ties to even. Out of range or NaN gives x86's "integer indefinite" value; vcvtnq_s32_f32 alone would saturate.
inline I round_to_int(F a) {
  const float32x4_t limit = vdupq_n_f32(2147483648.0f);
  return quarters<I>([&](int i) { return vbslq_s32(vcaltq_f32(a.v[i], limit), vcvtnq_s32_f32(a.v[i]), vdupq_n_s32(INT32_MIN)); });
}
inline F pow2(I n) {
  return quarters<F>([&](int i) { return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(n.v[i], vdupq_n_s32(127)), 23)); });
}
inline void store_int8(int8_t* p, I a) {  // the low byte of each lane
  const int16x8_t low = vcombine_s16(vmovn_s32(a.v[0]), vmovn_s32(a.v[1]));
  const int16x8_t high = vcombine_s16(vmovn_s32(a.v[2]), vmovn_s32(a.v[3]));
  vst1q_s8(p, vcombine_s8(vmovn_s16(low), vmovn_s16(high)));
}

inline F load_f16(const uint16_t* p) {
  return quarters<F>([=](int i) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p + 4 * i))); });
}
inline void store_f16(uint16_t* p, F a) {
  for (int i = 0; i < 4; ++i) vst1_u16(p + 4 * i, vreinterpret_u16_f16(vcvt_f16_f32(a.v[i])));
}
inline F load_bf16(const uint16_t* p) {
  return quarters<F>([=](int i) { return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p + 4 * i), 16)); });
}
inline F load_e4m3(const uint8_t* p) {  // divided by 256: the bits of a float16 with an exponent bias that is larger by 8
  return quarters<F>([=](int i) {
    uint16_t half[4];
    for (int j = 0; j < 4; ++j) half[j] = static_cast<uint16_t>((p[4 * i + j] & 0x80) << 8 | (p[4 * i + j] & 0x7f) << 7);
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(half)));
  });
}
inline F widen_u8(uint8x16_t b) {
  const uint16x8_t low = vmovl_u8(vget_low_u8(b)), high = vmovl_u8(vget_high_u8(b));
  return {{vcvtq_f32_u32(vmovl_u16(vget_low_u16(low))), vcvtq_f32_u32(vmovl_u16(vget_high_u16(low))),
           vcvtq_f32_u32(vmovl_u16(vget_low_u16(high))), vcvtq_f32_u32(vmovl_u16(vget_high_u16(high)))}};
}
inline F load_u8(const uint8_t* p) { return widen_u8(vld1q_u8(p)); }
// The low and the high 4 bits of 16 bytes.
inline F load_low_u4(const uint8_t* p) { return widen_u8(vandq_u8(vld1q_u8(p), vdupq_n_u8(15))); }
inline F load_high_u4(const uint8_t* p) { return widen_u8(vshrq_n_u8(vld1q_u8(p), 4)); }
inline F load_i8(const uint8_t* p) {
  const int8x16_t b = vld1q_s8(reinterpret_cast<const int8_t*>(p));
  const int16x8_t low = vmovl_s8(vget_low_s8(b)), high = vmovl_s8(vget_high_s8(b));
  return {{vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(low))),
           vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(high)))}};
}

inline Bytes load_bytes(const uint8_t* p) {
  return quarters<Bytes>([=](int i) { return vld1q_u8(p + 16 * i); });
}
inline Bytes and_bytes(Bytes a, uint8_t mask) {
  return quarters<Bytes>([&](int i) { return vandq_u8(a.v[i], vdupq_n_u8(mask)); });
}
inline Bytes or_bytes(Bytes a, Bytes b) {
  return quarters<Bytes>([&](int i) { return vorrq_u8(a.v[i], b.v[i]); });
}
// by: left if positive, right if negative; a compile-time constant.
inline Bytes shift(Bytes a, int by) {
  return quarters<Bytes>([&](int i) { return vshlq_u8(a.v[i], vdupq_n_s8(static_cast<int8_t>(by))); });
}

// table.v[code] for codes below 16.
inline Bytes look_up(const ByteTable& table, Bytes codes) {
  const uint8x16_t values = vld1q_u8(table.v);
  return quarters<Bytes>([&](int i) { return vqtbl1q_u8(values, codes.v[i]); });
}

inline void istore(int32_t* p, I a) {
  for (int i = 0; i < 4; ++i) vst1q_s32(p + 4 * i, a.v[i]);
}

// Weight codes as operands of the dot-product instruction: signed bytes, zero point subtracted.
template <int kLargest> inline constexpr bool kUnsignedDot = false;
template <int kLargest> inline constexpr bool kByDigits = false;  // whether the operands are the digits of activations
struct Codes { int8x16_t v[4]; };
inline void keep_in_register(Codes&) {}
template <int kLargest, int kZero> inline Codes codes(Bytes b) {
  return quarters<Codes>([&](int i) { return vreinterpretq_s8_u8(vsubq_u8(b.v[i], vdupq_n_u8(kZero))); });
}
// The dot product of 16 columns, starting at quad `first` of 4 columns, with 16 activations, per lane.
template <class Quads> [[gnu::always_inline]] inline I dot16(const Quads& quads, int first, const int8_t* x) {
  const int8x16_t activation = vld1q_s8(x);
  const Codes w[4] = {quads(first), quads(first + 1), quads(first + 2), quads(first + 3)};
  return quarters<I>([&](int i) {
    int32x4_t sum = vdotq_laneq_s32(vdupq_n_s32(0), w[0].v[i], activation, 0);
    sum = vdotq_laneq_s32(sum, w[1].v[i], activation, 1);
    sum = vdotq_laneq_s32(sum, w[2].v[i], activation, 2);
    return vdotq_laneq_s32(sum, w[3].v[i], activation, 3);
  });
}

inline constexpr int kMaxRows = OUTRIDER_MAX_ROWS, kMaxDenseRows = 4;  // rows that share one unpacking of a group
#define OUTRIDER_INLINE_ROWS [[gnu::always_inline]] inline
inline constexpr bool kFloatSums = false;  // see quads.h
template <int kLargest> inline constexpr bool kUnpackIntoMemory = false;

#ifndef OUTRIDER_I8MM  // neon_i8mm.h has products of its own
inline constexpr bool kUnpackOnce = true;
template <int kLargest> inline constexpr int kRowBlock = 1;
// sum[r] = the dot product of 4 * kCount columns, starting at quad `first` of 4 columns, with the activations x[r], per lane.
template <int kLargest, int kCount, class Quads, int kRows>
[[gnu::always_inline]] inline void dot_quads(const Quads& quads, int first, const int8_t* const (&x)[kRows], I (&sum)[kRows]) {
  for (int r = 0; r < kRows; ++r) {
    sum[r] = dot16(quads, first, x[r]);
    if constexpr (kCount == 8) sum[r] = iadd(sum[r], dot16(quads, first + 4, x[r] + 16));
  }
}
#endif

// Cached 8-bit codes, 4 for each lane, as operands of the dot-product instruction.
inline constexpr int kKeyOffset = 0;
struct KeyCodes { int8x16_t v[4]; };
using ValueCodes = KeyCodes;
inline KeyCodes key_codes(const int8_t* p) {
  return quarters<KeyCodes>([=](int i) { return vld1q_s8(p + 16 * i); });
}
inline ValueCodes value_codes(const int8_t* p) { return key_codes(p); }
// sum + the dot products of each lane's codes with the same 4 of a query, or with the weights (0 .. 127) of 4 positions.
inline I add_scores(I sum, const KeyCodes& k, const int8_t* query) {
  int32_t four;
  std::memcpy(&four, query, 4);
  const int8x16_t x = vreinterpretq_s8_s32(vdupq_n_s32(four));
  return quarters<I>([&](int i) { return vdotq_s32(sum.v[i], k.v[i], x); });
}
inline I add_weighted(I sum, const ValueCodes& v, const int8_t* weights) { return add_scores(sum, v, weights); }

// Attention's blocks of sums in registers: the most queries that share each load, and the vectors loaded for kQueries of them.
// Codes have two kinds of sums.
inline constexpr int kFloatQueries = 4, kCodeQueries = 4;
template <int kQueries> inline constexpr int kFloatVectors = 1;
template <int kQueries> inline constexpr int kCodeVectors = 1;

}  // namespace outrider::OUTRIDER_ISA
