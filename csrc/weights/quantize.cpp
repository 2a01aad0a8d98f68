#include "weights/quantize.h"

#include <cmath>
#include <cstring>

#include "weights/half.h"

namespace outrider {
namespace {

constexpr int kBlock = 32;

// Candidate codes for the weight of largest magnitude in a Q4_0 block; the one with the smallest error is used. The format's
// reference quantizer uses -8 only. Fractions refine the search around it. Integers recover the grid of weights trained for 4
// bits without error, whichever code their largest weight has.
constexpr float kExtremeCodes[] = {-8, -7, 7, -6, 6, -5, 5, -4, 4, -3, 3, -2, 2, -1, 1, -8.8f, -8.4f, -7.7f, -7.4f, 7.4f};

// Adding and subtracting it rounds magnitudes below 2^22 to integers (without SSE4.1 roundf is a function call).
constexpr float kMagic = 12582912.0f;

#if defined(__x86_64__) && defined(__gnu_linux__)
#define OUTRIDER_MULTIVERSION __attribute__((target_clones("default", "avx2", "avx512f")))
#else
#define OUTRIDER_MULTIVERSION
#endif

// Rounds a block to codes q in -8..7 with `inverse` = 1 / scale. Then sets `scale` to the least-squares scale of these codes,
// x.q / q.q, and returns by how much it reduces the squared error from x.x: (x.q)^2 / q.q.
OUTRIDER_MULTIVERSION float round_block(const float* x, float inverse, float* codes, float& scale) {
  float dot[kBlock], square[kBlock];
  for (int i = 0; i < kBlock; ++i) {
    float q = (x[i] * inverse + kMagic) - kMagic;
    q = q < -8.0f ? -8.0f : q;
    q = q > 7.0f ? 7.0f : q;
    codes[i] = q;
    dot[i] = x[i] * q;
    square[i] = q * q;
  }
  for (int half = kBlock / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) dot[i] += dot[i + half], square[i] += square[i + half];
  const float xq = dot[0], qq = square[0];
  if (qq <= 0) return 0;
  scale = xq / qq;
  return xq * scale;
}

float largest_magnitude(const float* x) {
  float largest = 0;
  for (int i = 0; i < kBlock; ++i)
    if (std::fabs(x[i]) > std::fabs(largest)) largest = x[i];
  return largest;
}

void quantize_q4_0(const float* x, uint8_t* block) {
  float best[kBlock] = {}, codes[kBlock], scale = 0, most = 0;
  if (const float largest = largest_magnitude(x); largest != 0.0f)
    for (float code : kExtremeCodes) {
      float fitted = 0;
      const float explained = round_block(x, code / largest, codes, fitted);
      if (explained > most) {
        most = explained, scale = fitted;
        std::memcpy(best, codes, sizeof best);
      }
    }
  const uint16_t half = float_to_half(scale);
  std::memcpy(block, &half, 2);
  for (int i = 0; i < 16; ++i) {
    const int low = static_cast<int>(best[i]) + 8, high = static_cast<int>(best[i + 16]) + 8;
    block[2 + i] = static_cast<uint8_t>(low | (high << 4));
  }
}

void quantize_q8_0(const float* x, uint8_t* block) {
  const uint16_t half = float_to_half(std::fabs(largest_magnitude(x)) / 127.0f);
  const float scale = half_to_float(half), inverse = scale > 0 ? 1.0f / scale : 0.0f;
  std::memcpy(block, &half, 2);
  for (int i = 0; i < kBlock; ++i) {
    float q = (x[i] * inverse + kMagic) - kMagic;  // may exceed 127, as the scale was rounded
    q = q < -127.0f ? -127.0f : q > 127.0f ? 127.0f : q;
    block[2 + i] = static_cast<uint8_t>(static_cast<int8_t>(q));
  }
}

}  // namespace

QuantizationError quantize_weights(Format to, const float* row, size_t columns, uint8_t* blocks) {
  constexpr float kLargestWeight = 65504.0f * 7;  // 65504 is the largest float16, and so the largest scale
  QuantizationError sum;
  const size_t block_bytes = info(to).block_bytes;
  for (size_t g = 0; g < columns / kBlock; ++g) {
    const float* x = row + g * kBlock;
    uint8_t* block = blocks + g * block_bytes;
    for (int i = 0; i < kBlock; ++i) sum.finite &= std::fabs(x[i]) <= kLargestWeight;  // false for NaN
    if (!sum.finite) return sum;
    to == Format::Q4_0 ? quantize_q4_0(x, block) : quantize_q8_0(x, block);
    uint16_t half;
    std::memcpy(&half, block, 2);
    const float scale = half_to_float(half);
    for (int i = 0; i < kBlock; ++i) {
      const uint8_t* q = block + 2;
      const int code = to == Format::Q8_0 ? static_cast<int8_t>(q[i]) : (i < 16 ? q[i] & 15 : q[i - 16] >> 4) - 8;
      const double difference = static_cast<double>(x[i]) - static_cast<double>(scale) * code;
      sum.error += difference * difference;
      sum.total += static_cast<double>(x[i]) * x[i];
    }
  }
  return sum;
}

}  // namespace outrider
