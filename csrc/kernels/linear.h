// Matrix times activation rows: out[m][n] = sum over k of W[n][k] * x[m][k], for the 16 rows of one tile.
//
// Exactness: an output is one lane, accumulated over the groups in ascending order with fused multiply-adds, for any number of
// rows; arithmetic within a group is on integers. A row's bits depend neither on the other rows of the batch, nor on the number
// of threads, nor on the instruction set.
// Cost: a tile's codes and scales are read from memory once for up to kMaxRows rows. One row is bound by memory bandwidth. The
// marginal row cost is 8 dot products of 64 bytes per group of 32 columns, hidden behind the reads up to about four rows.
#pragma once
#include "kernels/activation_panel.h"
#include "kernels/dense.h"
#include "kernels/prefetcher.h"
#include "kernels/quads.h"
#include "weights/layout.h"

#include <type_traits>
#include <utility>

namespace outrider::OUTRIDER_ISA {

// For quantized weights: few rows leave room in L1 beside their activations, for 4 kB of codes; more rows do not.
constexpr Ahead ahead(int bits, int rows) {
  if (rows == 1 || (bits == 8 && rows < 4)) return {static_cast<int>(4096 / code_bytes(bits)), true};
  return {bits == 2 ? 48 : bits == 4 ? 32 : 16, false};
}
template <Format kFormat, int kRows>
using GroupPrefetcher = Prefetcher<code_bytes(info(kFormat).bits), scale_bytes(info(kFormat).scales, kSuper) / (kSuper / kGroup),
                                   ahead(info(kFormat).bits, kRows)>;

// The dot products of group `g` with the activations of kRows rows less the zero point: integers, exact.
template <Format kFormat, class Quads, int kRows>
OUTRIDER_INLINE_ROWS void dot_group(const Quads& quads, const QuantizedRow* x, int g, F (&total)[kRows]) {
  constexpr FormatInfo f = info(kFormat);
  constexpr int kLargest = largest_operand(f);
  I sum[kRows];
  if constexpr (kByDigits<kLargest>) {
    const ActivationDigits* digits[kRows];
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) digits[i] = x[i].digits + g;
    dot_digits(quads, digits, sum);
  } else {
    const int8_t* codes[kRows];
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) codes[i] = x[i][g].codes;
    if constexpr (kFloatSums) {
#pragma GCC unroll 8
      for (int i = 0; i < kRows; ++i) sum[i] = subtract_zero_point<kLargest, f.zero>(as_int(set1(kFloatOffset)), x[i][g]);
    }
    dot_quads<kLargest, 8>(quads, 0, codes, sum);
  }
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) {
    if constexpr (kFloatSums) total[i] = sub(as_float(sum[i]), set1(kFloatOffset));
    else total[i] = to_float(subtract_zero_point<kLargest, f.zero>(sum[i], x[i][g]));
  }
}

// Accumulates group `g` for rows kFirst and on, in blocks of at most kRowBlock rows.
// second: the group's minimum, or the scale of its upper half. minima: of the halves, if they have any. In Scales::kGroups the sums
// are still to be multiplied by the scale, and all three are unused.
template <Format kFormat, int kFirst, class Quads, int kRows>
OUTRIDER_INLINE_ROWS void add_rows(const Quads& quads, const QuantizedRow* x, int g, F scale, F second, const F (&minima)[2],
                                   F (&acc)[kRows]) {
  constexpr FormatInfo f = info(kFormat);
  constexpr int kLargest = largest_operand(f), kZero = f.zero, kLeft = kRows - kFirst;
  constexpr int kBlocks = (kLeft + kRowBlock<kLargest> - 1) / kRowBlock<kLargest>, kBlock = (kLeft + kBlocks - 1) / kBlocks;
  if constexpr (scales_halves(f.scales)) {
    I low[kBlock], high[kBlock];
    const int8_t* activations[kBlock];
#pragma GCC unroll 8
    for (int i = 0; i < kBlock; ++i) activations[i] = x[kFirst + i][g].codes;
    if constexpr (kFloatSums) {
#pragma GCC unroll 8
      for (int i = 0; i < kBlock; ++i) {
        low[i] = float_start<kZero>(x[kFirst + i][g].half_sum[0]);
        high[i] = float_start<kZero>(x[kFirst + i][g].half_sum[1]);
      }
    }
    dot_quads<kLargest, 4>(quads, 0, activations, low);
#pragma GCC unroll 8
    for (int i = 0; i < kBlock; ++i) activations[i] += kGroup / 2;
    dot_quads<kLargest, 4>(quads, 4, activations, high);
#pragma GCC unroll 8
    for (int i = 0; i < kBlock; ++i) {
      const ActivationGroup& group = x[kFirst + i][g];
      F& sum = acc[kFirst + i];
      const F activation_scale = set1(group.scale);
      sum = fma(subtract_zero_point_of_half<kLargest, kZero>(low[i], group.half_sum[0]), mul(scale, activation_scale), sum);
      sum = fma(subtract_zero_point_of_half<kLargest, kZero>(high[i], group.half_sum[1]), mul(second, activation_scale), sum);
      if constexpr (f.scales == Scales::kSuperHalfMin) {
        sum = fma(minima[0], set1(group.scale * group.half_sum[0]), sum);
        sum = fma(minima[1], set1(group.scale * group.half_sum[1]), sum);
      }
    }
  } else {
    F total[kBlock];
    dot_group<kFormat>(quads, x + kFirst, g, total);
#pragma GCC unroll 8
    for (int i = 0; i < kBlock; ++i) {
      const ActivationGroup& group = x[kFirst + i][g];
      F& sum = acc[kFirst + i];
      const F activation_scale = set1(group.scale);
      sum = fma(total[i], f.scales == Scales::kGroups ? activation_scale : mul(scale, activation_scale), sum);
      if constexpr (f.scales == Scales::kMin || f.scales == Scales::kSuperMin) sum = fma(second, set1(group.scaled_sum), sum);
    }
  }
  if constexpr (kBlock < kLeft) {
    if constexpr (kUnpackIntoMemory<kLargest>) asm volatile("" ::: "memory");  // makes the compiler reload the codes
    add_rows<kFormat, kFirst + kBlock>(quads, x, g, scale, second, minima, acc);
  }
}

// Reads a tile's scales, group after group.
template <Format kFormat> struct ScaleReader {
  explicit ScaleReader(const uint8_t* at) : at(at) {}

  // To the scales of group `g`, which follows the last one. in_signs: what restore_signs() returned, in Scales::kInSigns.
  [[gnu::always_inline]] void step(int g, I in_signs) {
    constexpr FormatInfo f = info(kFormat);
    if constexpr (f.scales == Scales::kPlain) {
      scale = load_f16(reinterpret_cast<const uint16_t*>(at));
      at += 32;
    } else if constexpr (f.scales == Scales::kMin) {
      scale = load_f16(reinterpret_cast<const uint16_t*>(at));
      second = load_f16(reinterpret_cast<const uint16_t*>(at) + 16);
      at += 64;
    } else if constexpr (f.scales == Scales::kBrain) {
      scale = load_bf16(reinterpret_cast<const uint16_t*>(at));
      at += 32;
    } else if constexpr (f.scales == Scales::kHalfFloat8) {
      scale = mul(load_e4m3(at), set1(256 * f.unit));
      second = mul(load_e4m3(at + 16), set1(256 * f.unit));
      at += 32;
    } else {
      if (g % 8 == 0) {
        super_scale = load_f16(reinterpret_cast<const uint16_t*>(at));
        if constexpr (f.unit != 1.0f) super_scale = mul(super_scale, set1(f.unit));
        at += 32;
        if constexpr (f.scales == Scales::kSuperMin || f.scales == Scales::kSuperHalfMin) {
          super_minimum = sub(zero(), load_f16(reinterpret_cast<const uint16_t*>(at)));
          at += 32;
        }
      }
      if constexpr (f.scales == Scales::kSuperMin) {
        scale = mul(super_scale, load_u8(at));
        second = mul(super_minimum, load_u8(at + 16));
      } else if constexpr (f.scales == Scales::kSuperHalfMin) {
        scale = mul(super_scale, load_low_u4(at));
        second = mul(super_scale, load_low_u4(at + 16));
        minima[0] = mul(super_minimum, load_high_u4(at));
        minima[1] = mul(super_minimum, load_high_u4(at + 16));
      } else if constexpr (f.scales == Scales::kInSigns) {
        scale = fma(to_float(in_signs), add(super_scale, super_scale), super_scale);
      } else if constexpr (f.scales == Scales::kSuperOnly) {
        scale = super_scale;
      } else {
        scale = mul(super_scale, load_i8(at));
        if constexpr (f.scales == Scales::kSuperHalf) second = mul(super_scale, load_i8(at + 16));
      }
      at += f.scales == Scales::kSuperOnly || f.scales == Scales::kInSigns ? 0 : f.scales == Scales::kSuper ? 16 : 32;
    }
  }

  const uint8_t* at;
  F scale = zero(), second = zero(), minima[2] = {zero(), zero()};  // as in add_rows

 private:
  F super_scale = zero(), super_minimum = zero();
};

// The loops over rows are unrolled explicitly: the compiler does it for some row counts only and spills `acc` for the others,
// which costs up to a third.
template <Format kFormat, int kRows>
void quantized_tile(const Matrix& m, size_t tile, const Tile& next, const QuantizedRow* x, float* out, size_t stride) {
  constexpr FormatInfo f = info(kFormat);
  constexpr int kBits = f.bits;
  auto [codes_at, scales_at] = m.tile(tile);
  const int groups = static_cast<int>(m.columns / kGroup);
  GroupPrefetcher<kFormat, kRows> prefetcher(m.tile(tile), next, groups);
  ScaleReader<kFormat> scales(scales_at);
  F acc[kRows];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) acc[r] = zero();
  for (int g = 0; g < groups; ++g, codes_at += code_bytes(kBits)) {
    prefetcher.step(g);
    alignas(64) int32_t restored[64];
    I in_signs = izero();
    if constexpr (f.scales == Scales::kInSigns) in_signs = restore_signs(codes_at, restored);
    const uint8_t* codes = f.scales == Scales::kInSigns ? reinterpret_cast<const uint8_t*>(restored) : codes_at;
    Codes unpacked[8];
    auto quads = quads_of<kFormat, kRows>(codes, unpacked);
    if constexpr (kUnpackOnce && kRows > 1) {
#pragma GCC unroll 8
      for (int j = 0; j < 8; ++j) keep_in_register(quads.w[j]);
    }
    scales.step(g, in_signs);
    add_rows<kFormat, 0>(quads, x, g, scales.scale, scales.second, scales.minima, acc);
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) store(out + r * stride, mul(acc[r], set1(m.factor)));
}

// Codes with kGroups scales: each scale group is summed as in quantized_tile, without the scale, then multiplied by it.
template <Format kFormat, int kRows>
void grouped_tile(const Matrix& m, size_t tile, const Tile& next, const QuantizedRow* x, float* out, size_t stride) {
  constexpr int kBits = info(kFormat).bits, kZero = info(kFormat).zero;
  auto [codes_at, scales_at] = m.tile(tile);
  const int groups = static_cast<int>(m.columns / kGroup), per_scale = groups / static_cast<int>(m.scale_groups);
  GroupPrefetcher<kFormat, kRows> prefetcher(m.tile(tile), next, groups);
  for (int first = 0; first < groups; first += per_scale, scales_at += group_scale_bytes(m.zero_points)) {
    F acc[kRows];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) acc[r] = zero();
    for (int g = first; g < first + per_scale; ++g, codes_at += code_bytes(kBits)) {
      prefetcher.step(g);
      Codes unpacked[8];
      auto quads = quads_of<kFormat, kRows>(codes_at, unpacked);
      if constexpr (kUnpackOnce && kRows > 1) {
#pragma GCC unroll 8
        for (int j = 0; j < 8; ++j) keep_in_register(quads.w[j]);
      }
      add_rows<kFormat, 0>(quads, x, g, zero(), zero(), {zero(), zero()}, acc);
    }
    const F scale = load(reinterpret_cast<const float*>(scales_at));
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      if (m.zero_points) {
        float sum = 0.0f;  // of the activations
        for (int g = first; g < first + per_scale; ++g) sum += x[r][g].scaled_sum;
        acc[r] = fma(sub(set1(kZero), load_u8(scales_at + 4 * kTile)), set1(sum), acc[r]);
      }
      float* at = out + r * stride;
      store(at, first == 0 ? mul(acc[r], scale) : fma(acc[r], scale, load(at)));
    }
  }
}

using QuantizedTile = void (*)(const Matrix&, size_t, const Tile&, const QuantizedRow*, float*, size_t);

template <Format kFormat, int... kIndex> inline QuantizedTile quantized_for(int rows, std::integer_sequence<int, kIndex...>) {
  if constexpr (info(kFormat).scales == Scales::kGroups) {
    static constexpr QuantizedTile by_rows[] = {grouped_tile<kFormat, kIndex + 1>...};
    return by_rows[rows - 1];
  } else {
    static constexpr QuantizedTile by_rows[] = {quantized_tile<kFormat, kIndex + 1>...};
    return by_rows[rows - 1];
  }
}

template <Format kFormat> inline QuantizedTile quantized_for(int rows) {
  return quantized_for<kFormat>(rows, std::make_integer_sequence<int, kMaxRows>());
}

inline QuantizedTile quantized_for(Format f, int rows) {
  return for_quantized(f, [rows]<Format kFormat>() { return quantized_for<kFormat>(rows); });
}

// Tile `tile` times `rows` activation rows: out[r * stride + lane]. Quantized formats read `quantized`, dense formats `dense`
// (rows). next: what the caller needs after this tile, to prefetch.
inline void linear_tile(const Matrix& m, size_t tile, const Tile& next, const QuantizedRow* quantized,
                        const ActivationPanel* /*panels*/, const float* const* dense, int rows, float* out, size_t stride) {
  const bool is_dense = info(m.format).bits == 0;
  const int most = is_dense ? kMaxDenseRows : kMaxRows;
  for (int r = 0; r < rows;) {
    const int n = rows - r < most ? rows - r : most;
    if (is_dense) dense_for(m.format, n)(m, tile, next, dense + r, out + r * stride, stride);
    else quantized_for(m.format, n)(m, tile, next, quantized + r, out + r * stride, stride);
    r += n;
  }
}

}  // namespace outrider::OUTRIDER_ISA
