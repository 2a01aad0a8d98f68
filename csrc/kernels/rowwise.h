// Kernels that work on one row: norms, quantization of activations, rotary embeddings, gates.
// Buffers pad every length n with zeros to a multiple of 16; the kernels keep the padding zero.
#pragma once
#include <cmath>

#include "weights/layout.h"

namespace outrider::OUTRIDER_ISA {

// RMSNorm (Zhang and Sennrich 2019): out = x / sqrt(mean(x^2) + eps) * weight; a null weight means 1.
inline void rms_norm(const float* x, const float* weight, float eps, int n, float* out) {
  F squares = zero();
  for (int i = 0; i < n; i += 16) squares = fma(load(x + i), load(x + i), squares);
  const F factor = set1(1.0f / std::sqrt(reduce_add(squares) / static_cast<float>(n) + eps));
  for (int i = 0; i < n; i += 16) {
    const F normed = mul(load(x + i), factor);
    store(out + i, weight ? mul(normed, load(weight + i)) : normed);
  }
}

// x / scale on the grid of int8: to nearest, ties to even, within -128 .. 127. NaN remains.
inline F on_grid(F x, F scale) {
  const F clamped = min(set1(127.0f), max(set1(-128.0f), div(x, scale)));
  const F integers = set1(0x1.8p23f);  // near it, float32 numbers are the integers
  return sub(add(clamped, integers), integers);
}

// x = on_grid(x / scale) * scale: rounding to a static scale (static range quantization).
inline void round_row(float scale, int n, float* x) {
  for (int i = 0; i < n; i += 16) store(x + i, mul(on_grid(load(x + i), set1(scale)), set1(scale)));
}

// 16 codes as digits.
inline void store_digits(I codes, int8_t* low, int8_t* high) {
  static constexpr int32_t kHalf = 8, kAbove = 136;  // kAbove makes the sum positive
  const I upper = isub(ishift_right<4>(iadd(codes, ibroadcast(&kAbove))), ibroadcast(&kHalf));
  store_int8(low, isub(codes, ishift_left<4>(upper)));
  store_int8(high, upper);
}

// A group's codes and what is derived from them. The sums correct for the zero points and minima of weights.
inline void store_group(I first, I second, float scale, ActivationGroup* out, ActivationDigits* digits) {
  store_int8(out->codes, first);
  store_int8(out->codes + 16, second);
  store_digits(first, digits->low, digits->high);
  store_digits(second, digits->low + 16, digits->high + 16);
  const int total[2] = {reduce_sum(first), reduce_sum(second)}, sum = total[0] + total[1];
  out->half_sum[0] = static_cast<float>(total[0]);
  out->half_sum[1] = static_cast<float>(total[1]);
  out->sum = sum;
  out->times2 = 2 * sum;
  out->times8 = 8 * sum;
  out->times128 = 128 * sum;
  out->scale = scale;
  out->scaled_sum = scale * static_cast<float>(sum);
}

// Quantizes to the int8 grid of a static scale, as round_row does. n is a multiple of 32. A group with a NaN gets a NaN scale.
inline void quantize_row_static(const float* x, int n, float scale, ActivationGroup* out, ActivationDigits* digits) {
  for (; n > 0; n -= kGroup, x += kGroup, ++out, ++digits) {
    const F a = on_grid(load(x), set1(scale)), b = on_grid(load(x + 16), set1(scale)), limit = set1(129.0f);
    const F a_nan = select_below(abs(a), limit, zero(), set1(1.0f)), b_nan = select_below(abs(b), limit, zero(), set1(1.0f));
    if (any_above(max(a_nan, b_nan), zero())) store_group(izero(), izero(), __builtin_nanf(""), out, digits);
    else store_group(round_to_int(a), round_to_int(b), scale, out, digits);
  }
}

// Quantizes to int8 per group of 32: scale = largest magnitude / 127. n is a multiple of 32.
inline void quantize_row(const float* x, int n, ActivationGroup* out, ActivationDigits* digits) {
  for (; n > 0; n -= kGroup, x += kGroup, ++out, ++digits) {
    const F a = load(x), b = load(x + 16);
    // A NaN or an infinity makes the group's scale infinite and its codes 0, so that every sum over the group is NaN.
    const F infinity = set1(__builtin_inff()), a_abs = abs(a), b_abs = abs(b);
    const float largest =
        reduce_max(max(select_below(a_abs, infinity, a_abs, infinity), select_below(b_abs, infinity, b_abs, infinity)));
    const bool finite = largest > 1e-30f && largest < __builtin_inff();  // below 1e-30, 127 / largest may overflow: all codes 0
    const F inverse = set1(finite ? 127.0f / largest : 0.0f);
    const I qa = finite ? round_to_int(mul(a, inverse)) : izero(), qb = finite ? round_to_int(mul(b, inverse)) : izero();
    store_group(qa, qb, largest / 127.0f, out, digits);
  }
}

// dst += x
inline void add_row(const float* x, int n, float* dst) {
  for (int i = 0; i < n; i += 16) store(dst + i, add(load(dst + i), load(x + i)));
}

// dst *= factor
inline void scale_row(float factor, int n, float* dst) {
  for (int i = 0; i < n; i += 16) store(dst + i, mul(load(dst + i), set1(factor)));
}

// dst *= x
inline void multiply_row(const float* x, int n, float* dst) {
  for (int i = 0; i < n; i += 16) store(dst + i, mul(load(dst + i), load(x + i)));
}

// dst = gelu(gate) * up
inline void gelu_gate(const float* gate, const float* up, int n, float* dst) {
  for (int i = 0; i < n; i += 16) store(dst + i, mul(gelu(load(gate + i)), load(up + i)));
}

// Rotary position embedding (RoPE, Su et al. 2021) of one head, in place. Pairs are dimensions (i, i + dims / 2).
// cosine, sine: (dims / 2). The result is multiplied by `scale`.
inline void rope(float* head, const float* cosine, const float* sine, int dims, float scale) {
  const int half = dims / 2;
  const F s = set1(scale);
  for (int i = 0; i < half; i += 16) {
    const F a = load(head + i), b = load(head + half + i), c = load(cosine + i), d = load(sine + i);
    store(head + i, mul(sub(mul(a, c), mul(b, d)), s));
    store(head + half + i, mul(add(mul(b, c), mul(a, d)), s));
  }
}

// x = cap * tanh(x / cap), Gemma's softcap of the final logits.
inline void softcap(float cap, int n, float* x) {
  for (int i = 0; i < n; i += 16) store(x + i, mul(tanh(div(load(x + i), set1(cap))), set1(cap)));
}

// Sum of e^((x - top) * scale) over x (n): float32 within blocks of 256 values, double across blocks. NaN counts as -infinity.
// Bounded by the exponentials, about 0.4 ns each.
inline double sum_exp(const float* x, int64_t n, float top, float scale) {
  const F t = set1(top), s = set1(scale), infinite = set1(__builtin_inff());
  double total = 0.0;
  for (int64_t begin = 0; begin < n; begin += 256) {
    const int64_t end = begin + 256 < n ? begin + 256 : n;
    F sum = zero();
    for (int64_t i = begin; i < end; i += 16) {
      float tail[16];
      const float* at = x + i;
      if (end - i < 16) {
        for (int64_t j = 0; j < 16; ++j) tail[j] = i + j < end ? x[i + j] : -__builtin_inff();
        at = tail;
      }
      const F v = load(at);
      sum = add(sum, select_below(v, infinite, exp(mul(sub(v, t), s)), zero()));
    }
    total += reduce_add(sum);
  }
  return total;
}

}  // namespace outrider::OUTRIDER_ISA
