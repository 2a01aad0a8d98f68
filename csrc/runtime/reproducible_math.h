// Elementary functions with the same bits on every machine. The C library's differ: it dispatches by processor (with or
// without FMA), and implementations round differently. These use only +, -, *, / and conversions, which IEEE 754 specifies
// to the last bit, and are compiled without contraction (see sources.cmake).
// Method: argument reduction in parts (Cody and Waite 1980), then a Taylor series whose remainder is below the rounding error.
#pragma once
#include <bit>
#include <cstdint>
#include <limits>

namespace outrider::reproducible {

// ln(2) and pi/2 as sums of parts. All but the last have trailing zeros, so their products with small integers are exact.
inline constexpr double kLn2[] = {0x1.62e42feep-1, 0x1.a39ef35793c76p-33};
inline constexpr double kHalfPi[] = {0x1.921fb544p+0, 0x1.0b4611a6p-34, 0x1.3198a2e037073p-69};

// The nearest integer, ties to even, for |x| < 2^51.
inline double nearest(double x) {
  constexpr double kMagic = 0x1.8p52;
  return (x + kMagic) - kMagic;
}

// ln(x), within 1 ulp: x = 2^k m with m in [sqrt(1/2), sqrt(2)), ln(m) = 2 atanh(f / (2 + f)) with f = m - 1.
inline double log(double x) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  if (!(x > 0.0)) return x == 0.0 ? -kInfinity : std::numeric_limits<double>::quiet_NaN();
  if (x == kInfinity) return x;
  int64_t k = 0;
  if (x < std::numeric_limits<double>::min()) x *= 0x1p54, k = -54;
  const auto bits = std::bit_cast<uint64_t>(x);
  k += static_cast<int64_t>(bits >> 52) - 1023;
  double m = std::bit_cast<double>((bits & 0x000fffffffffffffu) | 0x3ff0000000000000u);
  if (m > 0x1.6a09e667f3bcdp+0) m *= 0.5, ++k;
  const double f = m - 1.0, s = f / (2.0 + f), z = s * s, z2 = z * z, z4 = z2 * z2;
  // 2 (z/3 + z^2/5 + ... + z^10/21), in pairs for instruction-level parallelism.
  const double low = (2.0 / 3 + 2.0 / 5 * z) + (2.0 / 7 + 2.0 / 9 * z) * z2;
  const double middle = (2.0 / 11 + 2.0 / 13 * z) + (2.0 / 15 + 2.0 / 17 * z) * z2;
  const double rest = z * (low + (middle + (2.0 / 19 + 2.0 / 21 * z) * z4) * z4);
  const double whole = static_cast<double>(k);
  return whole * kLn2[0] + (f - (s * (f - rest) - whole * kLn2[1]));
}

// e^x, within 1.1 ulp; 0 below -708 and infinity above 709, the limits of normal doubles.
inline double exp(double x) {
  if (x != x) return x;
  if (x < -708.0) return 0.0;
  if (x > 709.0) return std::numeric_limits<double>::infinity();
  const double k = nearest(x * 0x1.71547652b82fep+0);
  const double r = (x - k * kLn2[0]) - k * kLn2[1], r2 = r * r, r4 = r2 * r2, r8 = r4 * r4;
  // r^2 (1/2! + r/3! + ... + r^11/13!)
  const double a = (1.0 / 2 + 1.0 / 6 * r) + (1.0 / 24 + 1.0 / 120 * r) * r2;
  const double b = (1.0 / 720 + 1.0 / 5040 * r) + (1.0 / 40320 + 1.0 / 362880 * r) * r2;
  const double c = (1.0 / 3628800 + 1.0 / 39916800 * r) + (1.0 / 479001600 + 1.0 / 6227020800.0 * r) * r2;
  const double power = std::bit_cast<double>(static_cast<uint64_t>(static_cast<int64_t>(k) + 1023) << 52);
  return (1.0 + (r + r2 * (a + b * r4 + c * r8))) * power;
}

struct SineCosine { float sine, cosine; };

// Sine and cosine of an angle in radians, computed in double to within 1e-13 and rounded to float once, for magnitudes below
// 2^20 (positions times frequencies of at most 1). Up to 2^50 larger angles lose accuracy but stay reproducible.
inline SineCosine sine_cosine(float angle) {
  const double x = angle, k = nearest(x * 0x1.45f306dc9c883p-1);
  const double r = ((x - k * kHalfPi[0]) - k * kHalfPi[1]) - k * kHalfPi[2], z = r * r, z2 = z * z, z4 = z2 * z2;
  const double odd =
      (-1.0 / 6 + 1.0 / 120 * z) + (-1.0 / 5040 + 1.0 / 362880 * z) * z2 + (-1.0 / 39916800 + 1.0 / 6227020800.0 * z) * z4;
  const double even = (-1.0 / 2 + 1.0 / 24 * z) + (-1.0 / 720 + 1.0 / 40320 * z) * z2 + (-1.0 / 3628800 + 1.0 / 479001600 * z) * z4;
  const auto sine = static_cast<float>(r + r * (z * odd)), cosine = static_cast<float>(1.0 + z * even);
  switch (static_cast<int64_t>(k) & 3) {  // quarter turns
    case 0: return {sine, cosine};
    case 1: return {cosine, -sine};
    case 2: return {-sine, -cosine};
    default: return {-cosine, sine};
  }
}

}  // namespace outrider::reproducible
