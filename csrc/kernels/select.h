// Fused output projection and argmax: the largest logit of each row is tracked while the head's tiles are computed, so that
// logits need not be written to memory. Ties go to the lower token id. NaN is never chosen.
#pragma once
#include "kernels/activation_panel.h"
#include "weights/layout.h"
#include "kernels/linear.h"

namespace outrider::OUTRIDER_ISA {

// Updates a row's best with the logits (16) of tokens first .. first + count - 1. Tokens come in any order: a thread that steals
// work goes on with lower ones.
inline void update_best(const float* logits, int64_t first, int count, Best& best) {
  if (first > best.token && !any_above(load(logits), set1(best.logit))) return;
  for (int i = 0; i < count; ++i) {
    const auto token = static_cast<int32_t>(first + i);
    if (logits[i] > best.logit || (logits[i] == best.logit && token < best.token)) best = {logits[i], token};
  }
}

// Searches x[begin .. end - 1] in blocks of 16 for one with a value above the limit. Returns the index where that block
// begins, or `end`.
inline int64_t next_above(const float* x, int64_t begin, int64_t end, float limit) {
  for (; end - begin >= 16; begin += 16)
    if (any_above(load(x + begin), set1(limit))) return begin;
  for (int64_t i = begin; i < end; ++i)
    if (x[i] > limit) return begin;
  return end;
}

// Tiles begin .. end - 1 of the head for `rows` rows; updates best (rows). logits: null, or (rows, stride) to write them to.
// output_scale: the static scale that logits are rounded to, 0 for none. Tiles are computed by kLinearTile, kBlock rows at a time.
template <auto kLinearTile, int kBlock>
void head_tiles(const Matrix& m, size_t begin, size_t end, const QuantizedRow* quantized, const ActivationPanel* panels,
                const float* const* dense, int rows, Best* best, float* logits, size_t stride, float output_scale) {
  float out[kBlock * kTile];
  for (size_t tile = begin; tile < end; ++tile)
    for (int r = 0; r < rows; r += kBlock) {
      const int n = rows - r < kBlock ? rows - r : kBlock;
      kLinearTile(m, tile, m.tile(tile + 1), quantized ? quantized + r : nullptr,
                  panels ? panels + static_cast<size_t>(r / kPanelRows) * (m.columns / kGroup) : nullptr,
                  dense ? dense + r : nullptr, n, out, kTile);
      const size_t first = tile * kTile;
      const int count = static_cast<int>(m.rows - first < kTile ? m.rows - first : kTile);
      for (int i = 0; i < n; ++i) {
        if (output_scale != 0.0f) round_row(output_scale, kTile, out + i * kTile);
        update_best(out + i * kTile, static_cast<int64_t>(first), count, best[r + i]);
        if (logits) __builtin_memcpy(logits + (r + i) * stride + first, out + i * kTile, count * sizeof(float));
      }
    }
}

}  // namespace outrider::OUTRIDER_ISA
