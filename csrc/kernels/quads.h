// A group's codes as operands of dot products: unpacked from the bit planes of layout.h, and their zero points.
#pragma once
#include "weights/layout.h"

namespace outrider::OUTRIDER_ISA {

// Quad `number` of the group at p, unpacked.
template <Format kFormat> inline Codes quad(const uint8_t* p, int number) {
  constexpr FormatInfo f = info(kFormat);
  constexpr int kLargest = largest_operand(f);
  if constexpr (f.bits == 8) {
    return codes<kLargest, f.zero>(load_bytes(p + 64 * number));
  } else if constexpr (f.bits == 2) {
    return codes<kLargest, f.zero>(and_bytes(shift(load_bytes(p + 64 * (number / 4)), -2 * (number % 4)), 0x03));
  } else {
    const Bytes pair = load_bytes(p + 64 * (number / 2));
    Bytes b = and_bytes(number % 2 ? shift(pair, -4) : pair, 0x0f);
    if constexpr (f.bits == 5) b = or_bytes(b, and_bytes(shift(load_bytes(p + 256), 4 - number), 0x10));
    if constexpr (f.bits == 6)
      b = or_bytes(b, and_bytes(shift(load_bytes(p + 256 + 64 * (number / 4)), 4 - 2 * (number % 4)), 0x30));
    if constexpr (f.table != nullptr) {
      constexpr int kOffset = kUnsignedDot<kLargest> ? f.zero : 0;
      static constexpr ByteTable kOperands = operands(*f.table, kOffset);
      return codes<kLargest, 0>(look_up(kOperands, b));
    } else {
      return codes<kLargest, f.zero>(b);
    }
  }
}

// A group's quads, each unpacked on use.
template <Format kFormat> struct PackedQuads {
  explicit PackedQuads(const uint8_t* p) : p(p) {}
  [[gnu::always_inline, gnu::flatten]] Codes operator()(int number) const { return quad<kFormat>(p, number); }
  const uint8_t* p;
};

// A group's quads, unpacked once into registers.
template <Format kFormat> struct UnpackedQuads {
  explicit UnpackedQuads(const uint8_t* p) {
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) w[j] = quad<kFormat>(p, j);
  }
  const Codes& operator()(int number) const { return w[number]; }
  Codes w[8];
};

// Restores the signs of a group at p in whose place its scale stands (Scales::kInSigns), into `codes`. Returns the scale.
inline I restore_signs(const uint8_t* p, int32_t* codes) {
  I scale = izero();
#pragma GCC unroll 4
  for (int j = 3; j >= 0; --j) {
    const I eight = iload(reinterpret_cast<const int32_t*>(p + 64 * j));
    scale = iadd(iadd(scale, scale), ishift_right<31>(eight));
    istore(codes + 16 * j, even_signs(eight));
  }
  return scale;
}

// total - zero point * (sum of the group's activation codes), as integers. A subtraction with a memory operand runs in
// parallel with the dot products; a multiplication would occupy the same execution ports.
template <int kLargest, int kZero> inline I subtract_zero_point(I total, const ActivationGroup& x) {
  static_assert(kZero == 0 || kZero == 1 || kZero == 2 || kZero == 8 || kZero == 16 || kZero == 128);
  if constexpr (!kUnsignedDot<kLargest> || kZero == 0) return total;
  if constexpr (kZero == 1) return isub(total, ibroadcast(&x.sum));
  if constexpr (kZero == 2) return isub(total, ibroadcast(&x.times2));
  if constexpr (kZero == 128) return isub(total, ibroadcast(&x.times128));
  const I once = isub(total, ibroadcast(&x.times8));
  if constexpr (kZero == 16) return isub(once, ibroadcast(&x.times8));
  return once;
}

// Where kFloatSums, sums of products start at the bits of this number less what the zero point takes away, and so end as the bits
// of a float32 that is larger by it than the result (below 2^22). Subtracting it is exact, and takes the place of a conversion.
inline constexpr float kFloatOffset = 12582912.0f;  // 1.5 * 2^23
F as_float(I);                                      // the same bits; only where kFloatSums
// What the sum of products of a half group starts at, whose activation codes add up to `sum`.
template <int kZero> inline I float_start(float sum) { return as_int(fma(set1(sum), set1(-float(kZero)), set1(kFloatOffset))); }

// The same as subtract_zero_point() for half groups, as float32: exact, since both terms are integers below 2^24.
template <int kLargest, int kZero> inline F subtract_zero_point_of_half(I total, float sum) {
  if constexpr (kFloatSums) return sub(as_float(total), set1(kFloatOffset));
  if constexpr (kUnsignedDot<kLargest>) return fma(set1(sum), set1(-float(kZero)), to_float(total));
  return to_float(total);
}

// The lower or upper halves of a group's 8-bit codes, as codes of 4 bits.
template <bool kUpper> struct HalvesOfBytes {
  explicit HalvesOfBytes(const uint8_t* p) : p(p) {}
  [[gnu::always_inline, gnu::flatten]] Codes operator()(int number) const {
    const Bytes whole = load_bytes(p + 64 * number);
    return codes<15, 0>(and_bytes(kUpper ? shift(whole, -4) : whole, 0x0f));
  }
  const uint8_t* p;
};

}  // namespace outrider::OUTRIDER_ISA
