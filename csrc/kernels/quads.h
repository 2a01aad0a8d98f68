// A group's codes as operands of dot products: unpacked from the bit planes of layout.h, and their zero points.
#pragma once
#include "weights/layout.h"

namespace outrider::OUTRIDER_ISA {

// The codes of quad `number` of the group at p, as bytes. Of a format with a table: their values, larger by kOffset.
template <Format kFormat, int kOffset> inline Bytes unpacked(const uint8_t* p, int number) {
  constexpr FormatInfo f = info(kFormat);
  if constexpr (f.bits == 8) {
    return load_bytes(p + 64 * number);
  } else if constexpr (f.bits == 2) {
    return and_bytes(shift(load_bytes(p + 64 * (number / 4)), -2 * (number % 4)), 0x03);
  } else {
    const Bytes pair = load_bytes(p + 64 * (number / 2));
    Bytes b = and_bytes(number % 2 ? shift(pair, -4) : pair, 0x0f);
    if constexpr (f.bits == 5) b = or_bytes(b, and_bytes(shift(load_bytes(p + 256), 4 - number), 0x10));
    if constexpr (f.bits == 6)
      b = or_bytes(b, and_bytes(shift(load_bytes(p + 256 + 64 * (number / 4)), 4 - 2 * (number % 4)), 0x30));
    if constexpr (f.table != nullptr) {
      static constexpr ByteTable kOperands = operands(*f.table, kOffset);
      b = look_up(kOperands, b);
    }
    return b;
  }
}

// The same as an operand of dot products.
template <Format kFormat> inline Codes quad(const uint8_t* p, int number) {
  constexpr FormatInfo f = info(kFormat);
  constexpr int kLargest = largest_operand(f);
  if constexpr (f.table != nullptr) return codes<kLargest, 0>(unpacked<kFormat, kUnsignedDot<kLargest> ? f.zero : 0>(p, number));
  else return codes<kLargest, f.zero>(unpacked<kFormat, 0>(p, number));
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

// A group's quads, unpacked into memory, which stays in the first-level cache.
template <Format kFormat> struct StoredQuads {
  [[gnu::always_inline, gnu::flatten]] StoredQuads(const uint8_t* p, Codes* memory) : w(memory) {
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) w[j] = quad<kFormat>(p, j);
    asm volatile("" : "+r"(w) : : "memory");  // otherwise the compiler keeps copies of its own
  }
  // Loaded as vectors: a copy of the struct would be made in smaller parts.
  [[gnu::always_inline, gnu::flatten]] Codes operator()(int number) const {
    static_assert(sizeof(Codes) == 64 && kUnsignedDot<largest_operand(info(kFormat))>);
    return codes<largest_operand(info(kFormat)), 0>(load_bytes(reinterpret_cast<const uint8_t*>(w + number)));
  }
  Codes* w;
};

// A group's quads as its kernel for kRows rows reads them; `memory` for 8.
template <Format kFormat, int kRows> OUTRIDER_INLINE_ROWS auto quads_of(const uint8_t* p, [[maybe_unused]] Codes* memory) {
  constexpr int kLargest = largest_operand(info(kFormat));
  constexpr bool kPacked = info(kFormat).bits < 8;
  if constexpr (kUnpackOnce) return UnpackedQuads<kFormat>(p);
  else if constexpr (kUnpackIntoMemory<kLargest> && kPacked && (kRows > kRowBlock<kLargest>))
    return StoredQuads<kFormat>(p, memory);
  else return PackedQuads<kFormat>(p);
}

// Restores the signs of a group at p in whose place its scale stands (Scales::kInSigns), into `codes`. Returns the scale.
inline I restore_signs(const uint8_t* p, int32_t* codes) {
  constexpr uint32_t kSigns = 0x88888888;
  I word[4];  // word j: eight codes of 4 bits, the highest bit of each a sign, the last one bit j of the scale
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) word[j] = iload(reinterpret_cast<const int32_t*>(p + 64 * j));
  I signs = iand(word[0], kSigns);  // in the end, bit j of nibble n is the sign of code n of word j
#pragma GCC unroll 4
  for (int j = 1; j < 4; ++j) signs = ixor(ishift_right<1>(signs), iand(word[j], kSigns), izero());
  I parity = ixor(signs, ishift_right<16>(signs), izero());
  parity = ixor(parity, ishift_right<8>(parity), izero());
  parity = ixor(parity, ishift_right<4>(parity), izero());  // in its bits 0 .. 3; odd where the last sign is not what it should be
  const auto restored = [&]<int kBit>(I w) { return ixor(w, iand(ishift_left<31 - kBit>(parity), 0x80000000), izero()); };
  istore(codes, restored.template operator()<0>(word[0]));
  istore(codes + 16, restored.template operator()<1>(word[1]));
  istore(codes + 32, restored.template operator()<2>(word[2]));
  istore(codes + 48, restored.template operator()<3>(word[3]));
  return ishift_right<28>(signs);
}

// total - zero point * (sum of the group's activation codes), as integers. A subtraction with a memory operand runs in
// parallel with the dot products; a multiplication would occupy the same execution ports.
template <int kLargest, int kZero> inline I subtract_zero_point(I total, const ActivationGroup& x) {
  static_assert(kZero == 0 || kZero == 1 || kZero == 2 || kZero == 8 || kZero == 16 || kZero == 32 || kZero == 128);
  if constexpr (!kUnsignedDot<kLargest> || kZero == 0) return total;
  if constexpr (kZero == 1) return isub(total, ibroadcast(&x.sum));
  if constexpr (kZero == 2) return isub(total, ibroadcast(&x.times2));
  if constexpr (kZero == 32) return isub(total, ishift_left<5>(ibroadcast(&x.sum)));
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
  if constexpr (kUnsignedDot<kLargest> && kZero != 0) return fma(set1(sum), set1(-float(kZero)), to_float(total));
  return to_float(total);
}

}  // namespace outrider::OUTRIDER_ISA
