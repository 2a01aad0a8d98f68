// Quantization of float32 weights to the block formats Q4_0 and Q8_0, with small squared error.
#pragma once
#include <cstddef>
#include <cstdint>

#include "weights/layout.h"

namespace outrider {

// Sums over the quantized weights: of squared errors and of squares. `finite` is false if a weight is not finite or too large for
// a float16 scale; the blocks are then incomplete.
struct QuantizationError {
  double error = 0, total = 0;
  bool finite = true;
};

// Quantizes one row of `columns` weights, a multiple of 32, to blocks of `to`, which is Q4_0 or Q8_0.
QuantizationError quantize_weights(Format to, const float* row, size_t columns, uint8_t* blocks);

}  // namespace outrider
