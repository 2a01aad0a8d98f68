// The choice over the vocabulary: the largest logit of each row, kept while the head's tiles go by, so that the
// logits need not be written to memory. Ties go to the lower token id. A NaN is never chosen.
#pragma once
#include "weights/layout.h"
#include "kernels/linear.h"

namespace outrider::OUTRIDER_ISA {

// logits (16) of tokens first .. first + count - 1 of one row.
inline void keep_best(const float* logits, int64_t first, int count, Best& best) {
  if (!any_above(load(logits), set1(best.logit))) return;
  for (int i = 0; i < count; ++i)
    if (logits[i] > best.logit) best = {logits[i], static_cast<int32_t>(first + i)};
}

// Looks through x[begin .. end - 1] in groups of 16 for one with a value above the limit, and returns where it begins;
// `end` if there is none.
inline int64_t next_above(const float* x, int64_t begin, int64_t end, float limit) {
  for (; end - begin >= 16; begin += 16)
    if (any_above(load(x + begin), set1(limit))) return begin;
  for (int64_t i = begin; i < end; ++i)
    if (x[i] > limit) return begin;
  return end;
}

// Tiles begin .. end - 1 of the head for `rows` rows. logits: null, or where to write them, `stride` floats a row.
inline void head_tiles(const Matrix& m, size_t begin, size_t end, const QuantizedRow* quantized, const float* const* dense,
                       int rows, Best* best, float* logits, size_t stride) {
  float out[kMaxRows * kTile];
  for (size_t tile = begin; tile < end; ++tile)
    for (int r = 0; r < rows; r += kMaxRows) {
      const int n = rows - r < kMaxRows ? rows - r : kMaxRows;
      linear_tile(m, tile, m.codes + (tile + 1) * m.tile_codes, quantized ? quantized + r : nullptr, dense ? dense + r : nullptr, n,
                  out, kTile);
      const size_t first = tile * kTile;
      const int count = static_cast<int>(m.rows - first < kTile ? m.rows - first : kTile);
      for (int i = 0; i < n; ++i) {
        keep_best(out + i * kTile, static_cast<int64_t>(first), count, best[r + i]);
        if (logits) __builtin_memcpy(logits + (r + i) * stride + first, out + i * kTile, count * sizeof(float));
      }
    }
}

}  // namespace outrider::OUTRIDER_ISA
