// Matrix times many activation rows by matrix registers: the same outputs as quantized_tile and grouped_tile, bit for bit.
//
// One multiplication of registers gives a group's sums of byte products for 16 rows: (16 rows, 32 columns) of activations by
// (32 columns, 16 output rows) of codes. The codes are signed here, so there is no zero point to subtract. The sums go through
// memory to vector registers, which hold the accumulators of 16 rows. Cost: a tile's codes are read from memory and unpacked once
// for all rows. Then a group takes 3 vector operations for each row, and loading and storing matrix registers takes about as long
// as those: see docs/lab/pass-costs.md.
#pragma once
#include "kernels/activation_panel.h"
#include "kernels/kernel_table.h"
#include "kernels/linear.h"
#include "kernels/select.h"

namespace outrider::OUTRIDER_ISA {

// Matrix registers: sums, activations and codes of a group, and of half a group.
inline constexpr int kSums = 0, kActivations = 1, kCodes = 2, kHalfActivations = 3, kHalfCodes = 4;
constexpr RegisterShapes register_shapes() {
  RegisterShapes s;
  s.set(kSums, kPanelRows, kTile * 4);
  s.set(kActivations, kPanelRows, kGroup);
  s.set(kCodes, kGroup / 4, 4 * kTile);
  s.set(kHalfActivations, kPanelRows, kGroup / 2);
  s.set(kHalfCodes, kGroup / 8, 4 * kTile);
  return s;
}

// Shapes stay set between the tiles of a run: setting them takes a tenth as long as a small tile.
inline thread_local bool registers_are_shaped = false;
inline void shape_registers_once() {
  if (registers_are_shaped) return;
  static constexpr RegisterShapes kShapes = register_shapes();
  shape_registers(kShapes);
  registers_are_shaped = true;
}
inline void end_run() {
  if (!registers_are_shaped) return;
  release_registers();
  registers_are_shaped = false;
}

// A group's codes less the zero point: (8 quads, 16 output rows, 4 columns).
using SignedCodes = uint8_t[kTile * kGroup];
// Unpacks the group at p. Returns what restore_signs() does, in Scales::kInSigns.
template <Format kFormat> inline I unpack_signed(const uint8_t* p, SignedCodes& to) {
  constexpr FormatInfo f = info(kFormat);
  alignas(64) int32_t restored[64];
  I in_signs = izero();
  if constexpr (f.scales == Scales::kInSigns) {
    in_signs = restore_signs(p, restored);
    p = reinterpret_cast<const uint8_t*>(restored);
  }
#pragma GCC unroll 8
  for (int j = 0; j < 8; ++j) {
    Bytes b = unpacked<kFormat, 0>(p, j);
    if constexpr (f.table == nullptr && f.zero != 0) b = sub_bytes(b, f.zero);
    store_bytes(to + 64 * j, b);
  }
  return in_signs;
}

// The sums of products of a group, or of each of its halves.
template <Format kFormat> struct PanelSums {
  static constexpr bool kHalves = scales_halves(info(kFormat).scales);
  using Sums = int32_t[kPanelRows * kTile];
  alignas(64) Sums sums[kHalves ? 2 : 1];

  void multiply(const SignedCodes& codes, const ActivationPanel& x) {
    if constexpr (kHalves) {
      multiply<kHalfActivations, kHalfCodes>(codes, x, 0);
      multiply<kHalfActivations, kHalfCodes>(codes, x, 1);
    } else {
      multiply<kActivations, kCodes>(codes, x, 0);
    }
  }
  F row(int half, int r) const { return to_float(iload(sums[half] + r * kTile)); }

 private:
  template <int kA, int kB> void multiply(const SignedCodes& codes, const ActivationPanel& x, int half) {
    load_register<kB>(codes + half * sizeof(SignedCodes) / 2, 4 * kTile);
    load_register<kA>(x.codes[0] + half * kGroup / 2, kGroup);
    zero_register<kSums>();
    multiply_registers<kSums, kA, kB>();
    store_register<kSums>(sums[half], kTile * 4);
  }
};

// Accumulates a group for 16 rows; the same operations as in add_rows.
template <Format kFormat>
inline void add_sums(const PanelSums<kFormat>& sums, const ActivationPanel& x, const ScaleReader<kFormat>& scales,
                     F (&acc)[kPanelRows]) {
  constexpr Scales kScales = info(kFormat).scales;
#pragma GCC unroll 16
  for (int r = 0; r < kPanelRows; ++r) {
    const F activation_scale = set1(x.scale[r]);
    acc[r] = fma(sums.row(0, r), kScales == Scales::kGroups ? activation_scale : mul(scales.scale, activation_scale), acc[r]);
    if constexpr (PanelSums<kFormat>::kHalves) acc[r] = fma(sums.row(1, r), mul(scales.second, activation_scale), acc[r]);
    if constexpr (kScales == Scales::kSuperHalfMin) {
      acc[r] = fma(scales.minima[0], set1(x.scaled_half_sum[0][r]), acc[r]);
      acc[r] = fma(scales.minima[1], set1(x.scaled_half_sum[1][r]), acc[r]);
    }
    if constexpr (kScales == Scales::kMin || kScales == Scales::kSuperMin)
      acc[r] = fma(scales.second, set1(x.scaled_sum[r]), acc[r]);
  }
}

// panels: (rows / 16, rounded up; columns / 32). Rows of the last panel that are not asked for may hold anything.
template <Format kFormat>
void panels_tile(const Matrix& m, size_t tile, const Tile& next, const ActivationPanel* panels, int rows, float* out,
                 size_t stride) {
  constexpr FormatInfo f = info(kFormat);
  constexpr int kUnpacked = 24;  // groups that are unpacked at once: 12 kB, which stay in L1 for all rows
  alignas(64) SignedCodes codes[kUnpacked];
  PanelSums<kFormat> sums[2];
  I in_signs[kUnpacked];
  auto [codes_at, scales_at] = m.tile(tile);
  const int groups = static_cast<int>(m.columns / kGroup);
  Prefetcher<code_bytes(f.bits), scale_bytes(f.scales, kSuper) / (kSuper / kGroup), Ahead{2 * kUnpacked, false}> prefetcher(
      m.tile(tile), next, groups);
  ScaleReader<kFormat> scales(scales_at);
  for (int first = 0, count; first < groups; first += count) {
    count = groups - first < kUnpacked ? groups - first : kUnpacked;
    for (int i = 0; i < count; ++i, codes_at += code_bytes(f.bits)) in_signs[i] = unpack_signed<kFormat>(codes_at, codes[i]);
    const ScaleReader<kFormat> before = scales;
    F factor = set1(first + count < groups ? 1.0f : m.factor);
    if constexpr (f.scales == Scales::kGroups)
      if (first + count == groups) factor = load(reinterpret_cast<const float*>(scales_at));
    for (int row = 0; row < rows; row += kPanelRows) {
      const ActivationPanel* x = panels + static_cast<size_t>(row / kPanelRows) * groups + first;
      float* at = out + row * stride;
      F acc[kPanelRows];
#pragma GCC unroll 16
      for (int r = 0; r < kPanelRows; ++r) acc[r] = first != 0 && row + r < rows ? load(at + r * stride) : zero();
      scales = before;
      sums[0].multiply(codes[0], x[0]);
      for (int i = 0; i < count; ++i) {
        if (row == 0) prefetcher.step(first + i);
        if (i + 1 < count) sums[(i + 1) % 2].multiply(codes[i + 1], x[i + 1]);
        if constexpr (f.scales != Scales::kGroups) scales.step(first + i, in_signs[i]);
        add_sums(sums[i % 2], x[i], scales, acc);
      }
#pragma GCC unroll 16
      for (int r = 0; r < kPanelRows; ++r)
        if (row + r < rows) store(at + r * stride, mul(acc[r], factor));
    }
  }
}

using PanelsTile = void (*)(const Matrix&, size_t, const Tile&, const ActivationPanel*, int, float*, size_t);

// Null for matrices that other kernels multiply: dense ones, and those with several scale groups in a row.
inline PanelsTile panels_tile_of(const Matrix& m) {
  if (info(m.format).scales == Scales::kGroups && (m.scale_groups > 1 || m.zero_points)) return nullptr;
  return for_quantized(m.format, []<Format kFormat>() -> PanelsTile { return panels_tile<kFormat>; });
}

// For fewer rows the other kernels are faster. A register of half a group takes as long as one of a whole group.
inline constexpr int kLeastPanelRows = 13, kLeastRowsOfHalves = 2 * kPanelRows;

// How many of `rows` rows, from the first on, are multiplied by matrix registers.
inline int rows_of_panels(Format f, int rows) {
  if (scales_halves(info(f).scales) && rows < kLeastRowsOfHalves) return 0;
  const int left = rows % kPanelRows;
  return left < kLeastPanelRows ? rows - left : rows;
}

// As linear_tile, with kFew's kernels for the rows and formats for which panels do not pay.
template <const KernelTable& kFew>
void linear_tile_of_panels(const Matrix& m, size_t tile, const Tile& next, const QuantizedRow* quantized,
                           const ActivationPanel* panels, const float* const* dense, int rows, float* out, size_t stride) {
  const PanelsTile multiply = panels ? panels_tile_of(m) : nullptr;
  const int many = multiply ? rows_of_panels(m.format, rows) : 0, few = rows - many;
  if (many > 0) {
    shape_registers_once();
    multiply(m, tile, few > 0 ? m.tile(tile) : next, panels, many, out, stride);
  }
  if (few > 0)
    kFew.linear_tile(m, tile, next, quantized ? quantized + many : nullptr, nullptr, dense ? dense + many : nullptr, few,
                     out + many * stride, stride);
}

// What replaces kFew's kernels where there are matrix registers.
template <const KernelTable& kFew> constexpr PanelKernels make_panel_kernels() {
  return {linear_tile_of_panels<kFew>, head_tiles<linear_tile_of_panels<kFew>, kLeastRowsOfHalves>, kLeastPanelRows, end_run};
}

}  // namespace outrider::OUTRIDER_ISA
