// quantize_weights: dequantized blocks are close to the weights, and weights on the grid are reproduced.
#include "weights/quantize.h"

#include <cmath>
#include <limits>

#include "packed.h"

namespace outrider::test {

void test_quantize() {
  Random random(11);
  const size_t columns = 256;
  for (Format f : {Format::Q4_0, Format::Q8_0}) {
    const std::string what = info(f).name;
    std::vector<float> row(columns), back(columns);
    for (float& x : row) x = random.uniform();
    for (size_t i = 64; i < 96; ++i) row[i] = 0.0f;
    std::vector<uint8_t> blocks(row_bytes(f, columns)), again(blocks.size());
    const QuantizationError first = quantize_weights(f, row.data(), columns, blocks.data());
    dequantize_row(f, blocks.data(), columns, back.data());
    double error = 0, total = 0;
    for (size_t i = 0; i < columns; ++i) error += (row[i] - back[i]) * (row[i] - back[i]), total += row[i] * row[i];
    CHECK(first.finite && std::fabs(first.error - error) < 1e-5 * total && std::fabs(first.total - total) < 1e-5 * total, what);
    CHECK(std::sqrt(error / total) < (f == Format::Q4_0 ? 0.09 : 0.006), what);
    for (size_t i = 64; i < 96; ++i) CHECK(back[i] == 0.0f, what);
    digest.add(blocks);

    // Weights on the grid of the format are reproduced.
    const QuantizationError second = quantize_weights(f, back.data(), columns, again.data());
    std::vector<float> same(columns);
    dequantize_row(f, again.data(), columns, same.data());
    CHECK(second.finite && second.error <= 1e-5 * second.total, what);
    for (size_t i = 0; i < columns; ++i) CHECK(std::fabs(same[i] - back[i]) <= 0.004f * std::fabs(back[i]), what);

    for (float wrong : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN(), 1e9f}) {
      row[200] = wrong;
      CHECK(!quantize_weights(f, row.data(), columns, blocks.data()).finite, what);
    }
  }
}

}  // namespace outrider::test
