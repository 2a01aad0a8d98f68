// a b + c with one rounding, on every machine. C libraries are not alike in this: MinGW's fmaf rounds twice.
#pragma once
#include <bit>
#include <cstdint>

namespace outrider::reproducible {

// Without an instruction for it: the sum is rounded to odd in double precision, which has more than 24 + 2 bits, so that the
// rounding to float is the one of the exact value (Boldo and Melquiond 2008).
inline float fma(float a, float b, float c) {
#if defined(__FP_FAST_FMAF)
  return __builtin_fmaf(a, b, c);
#else
  const double product = static_cast<double>(a) * b, sum = product + c;  // the product is exact
  const double back = sum - product, error = (product - (sum - back)) + (c - back);
  auto bits = std::bit_cast<uint64_t>(sum);
  const bool inexact = error > 0 || error < 0;  // NaN where something is infinite
  if (inexact && (bits & 1) == 0) bits += (error > 0) == (sum > 0) ? 1 : -1;
  return static_cast<float>(std::bit_cast<double>(bits));
#endif
}

}  // namespace outrider::reproducible
