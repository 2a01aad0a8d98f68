// Quantized activations as matrix registers read them: 16 rows of a group of columns side by side.
#pragma once
#include <cstring>

#include "weights/layout.h"

namespace outrider {

inline constexpr int kPanelRows = 16;

// Of row r: the codes, and per row what follows the products, as in ActivationGroup. Contiguous, because registers load slowly from
// rows that are far apart, and scales of 16 rows share a cache line.
struct alignas(64) ActivationPanel {
  int8_t codes[kPanelRows][kGroup];
  float scale[kPanelRows], scaled_sum[kPanelRows];
  float scaled_half_sum[2][kPanelRows];  // scale * sum of the codes of each half group
};

// Copies groups of one row into row `row` of as many panels.
inline void pack_row(const ActivationGroup* from, size_t groups, int row, ActivationPanel* to) {
  for (size_t g = 0; g < groups; ++g) {
    std::memcpy(to[g].codes[row], from[g].codes, kGroup);
    to[g].scale[row] = from[g].scale;
    to[g].scaled_sum[row] = from[g].scaled_sum;
    for (int half = 0; half < 2; ++half) to[g].scaled_half_sum[half][row] = from[g].scale * from[g].half_sum[half];
  }
}

}  // namespace outrider
