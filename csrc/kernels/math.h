// Elementary functions on 16 lanes: one polynomial for all instruction sets.
#pragma once

namespace outrider::OUTRIDER_ISA {

// Sum over lanes, as a binary tree in a fixed order.
inline float reduce_add(F a) {
  float t[16];
  store(t, a);
  for (int step = 8; step > 0; step /= 2)
    for (int i = 0; i < step; ++i) t[i] += t[i + step];
  return t[0];
}

// e^x: 2^n * p(r) with n = round(x / ln 2); p is the degree-6 minimax polynomial of Cephes' expf (2 ulp).
// Below -87 the result is 0, so a masked score of -infinity gets weight 0; above 88 it is infinity.
inline F exp(F x) {
  const F clamped = min(max(x, set1(-87.0f)), set1(88.0f));
  const I n = round_to_int(mul(clamped, set1(1.44269504088896341f)));
  const F fn = to_float(n);
  F r = fma(fn, set1(-0.693359375f), clamped);
  r = fma(fn, set1(2.12194440e-4f), r);
  F p = set1(1.9875691500e-4f);
  p = fma(p, r, set1(1.3981999507e-3f));
  p = fma(p, r, set1(8.3334519073e-3f));
  p = fma(p, r, set1(4.1665795894e-2f));
  p = fma(p, r, set1(1.6666665459e-1f));
  p = fma(p, r, set1(5.0000001201e-1f));
  p = add(fma(mul(r, r), p, r), set1(1.0f));
  const F finite = select_below(x, set1(-87.0f), zero(), mul(p, pow2(n)));
  return select_below(x, set1(88.0f), finite, add(x, set1(__builtin_inff())));  // propagates NaN
}

// tanh via e^(-2|x|), accurate in the tails; below 0.625 an odd polynomial avoids cancellation.
inline F tanh(F x) {
  const F magnitude = abs(x);
  const F e = exp(mul(magnitude, set1(-2.0f)));
  const F large = div(sub(set1(1.0f), e), add(set1(1.0f), e));
  const F x2 = mul(x, x);
  F p = set1(-5.70498872745e-3f);  // Cephes' tanhf below 0.625
  p = fma(p, x2, set1(2.06390887954e-2f));
  p = fma(p, x2, set1(-5.37397155531e-2f));
  p = fma(p, x2, set1(1.33314422036e-1f));
  p = fma(p, x2, set1(-3.33332819422e-1f));
  const F small = fma(mul(p, x2), magnitude, magnitude);
  const F positive = select_below(magnitude, set1(0.625f), small, large);
  return select_below(x, zero(), sub(zero(), positive), positive);
}

// GELU, tanh form: x / (1 + e^(-2u)), u = sqrt(2/pi) * (x + 0.044715 x^3); equal to x/2 * (1 + tanh u).
inline F gelu(F x) {
  const F cube = mul(mul(x, x), x);
  const F u = mul(set1(0.7978845608028654f), fma(set1(0.044715f), cube, x));
  return div(x, add(set1(1.0f), exp(mul(set1(-2.0f), u))));
}

}  // namespace outrider::OUTRIDER_ISA
