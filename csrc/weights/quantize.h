// From floating point to the block formats Q4_0 and Q8_0, losing as little as the format allows.
#pragma once
#include <cstddef>
#include <cstdint>

#include "weights/layout.h"

namespace outrider {

// Squared error and squared sum of what was quantized; `finite` is false if a weight was not, or too large for a scale.
struct QuantizationError {
  double error = 0, total = 0;
  bool finite = true;
};

// One row of `columns` weights (a multiple of 32) to blocks of `to`, which is Q4_0 or Q8_0.
QuantizationError quantize_weights(Format to, const float* row, size_t columns, uint8_t* blocks);

}  // namespace outrider
