// Matrices of floating-point weights times float32 activations: as in linear.h, without quantization.
#pragma once
#include "kernels/prefetcher.h"
#include "weights/layout.h"

#include <utility>

namespace outrider::OUTRIDER_ISA {

template <Format kFormat> inline F dense_column(const uint8_t* tile, size_t k) {
  if constexpr (kFormat == Format::F32) return load(reinterpret_cast<const float*>(tile) + k * kTile);
  if constexpr (kFormat == Format::F16) return load_f16(reinterpret_cast<const uint16_t*>(tile) + k * kTile);
  if constexpr (kFormat == Format::BF16) return load_bf16(reinterpret_cast<const uint16_t*>(tile) + k * kTile);
}

// Dense weights with float32 activations. Column k is accumulated in partial sum k % 4; the four are added at the end.
template <Format kFormat, int kRows>
void dense_tile(const Matrix& m, size_t tile, const Tile& next, const float* const* x, float* out, size_t stride) {
  const uint8_t* at = m.tile(tile).codes;
  F acc[kRows][4];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
    for (int j = 0; j < 4; ++j) acc[r][j] = zero();
  constexpr size_t kStep = 4 * kTile * dense_bytes(kFormat);
  Prefetcher<kStep, 0,
             Ahead{kRows == 1    ? 0
                   : kStep < 256 ? 64
                                 : 16,
                   false}>
      prefetcher(m.tile(tile), next, static_cast<int>(m.columns / 4));
  size_t k = 0;
  for (; k + 4 <= m.columns; k += 4) {
    prefetcher.step(static_cast<int>(k / 4));
#pragma GCC unroll 8
    for (int j = 0; j < 4; ++j) {
      const F w = dense_column<kFormat>(at, k + j);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) acc[r][j] = fma(w, set1(x[r][k + j]), acc[r][j]);
    }
  }
#pragma GCC unroll 8
  for (size_t j = 0; j < 3; ++j) {
    if (k + j >= m.columns) continue;
    const F w = dense_column<kFormat>(at, k + j);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) acc[r][j] = fma(w, set1(x[r][k + j]), acc[r][j]);
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    const F sum = add(add(acc[r][0], acc[r][1]), add(acc[r][2], acc[r][3]));
    store(out + r * stride, mul(sum, set1(m.factor)));
  }
}

// F8_E4M3 weights with float32 activations: each scale group is summed as in dense_tile, then multiplied by the scale.
template <int kRows>
void e4m3_tile(const Matrix& m, size_t tile, const Tile& next, const float* const* x, float* out, size_t stride) {
  auto [at, scales_at] = m.tile(tile);
  const size_t per_scale = m.columns / m.scale_groups;
  Prefetcher<4 * kTile, 0, Ahead{kRows == 1 ? 0 : 64, false}> prefetcher(m.tile(tile), next, static_cast<int>(m.columns / 4));
  for (size_t first = 0; first < m.columns; first += per_scale, scales_at += group_scale_bytes(false)) {
    F acc[kRows][4];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r)
      for (int j = 0; j < 4; ++j) acc[r][j] = zero();
    for (size_t k = first; k < first + per_scale; k += 4) {
      prefetcher.step(static_cast<int>(k / 4));
#pragma GCC unroll 8
      for (int j = 0; j < 4; ++j) {
        const F w = load_e4m3(at + (k + j) * kTile);
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) acc[r][j] = fma(w, set1(x[r][k + j]), acc[r][j]);
      }
    }
    const F scale = load(reinterpret_cast<const float*>(scales_at));
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const F sum = mul(add(add(acc[r][0], acc[r][1]), add(acc[r][2], acc[r][3])), set1(256.0f));
      float* to = out + r * stride;
      store(to, first == 0 ? mul(sum, scale) : fma(sum, scale, load(to)));
    }
  }
}

using DenseTile = void (*)(const Matrix&, size_t, const Tile&, const float* const*, float*, size_t);

template <Format kFormat, int... kIndex> inline DenseTile dense_for(int rows, std::integer_sequence<int, kIndex...>) {
  if constexpr (kFormat == Format::F8_E4M3) {
    static constexpr DenseTile by_rows[] = {e4m3_tile<kIndex + 1>...};
    return by_rows[rows - 1];
  } else {
    static constexpr DenseTile by_rows[] = {dense_tile<kFormat, kIndex + 1>...};
    return by_rows[rows - 1];
  }
}

template <Format kFormat> inline DenseTile dense_for(int rows) {
  return dense_for<kFormat>(rows, std::make_integer_sequence<int, kMaxDenseRows>());
}

inline DenseTile dense_for(Format f, int rows) {
  switch (f) {
    case Format::F32: return dense_for<Format::F32>(rows);
    case Format::F16: return dense_for<Format::F16>(rows);
    case Format::BF16: return dense_for<Format::BF16>(rows);
    case Format::F8_E4M3: return dense_for<Format::F8_E4M3>(rows);
    default: return nullptr;
  }
}

}  // namespace outrider::OUTRIDER_ISA
