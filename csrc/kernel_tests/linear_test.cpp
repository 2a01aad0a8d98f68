// Linear tiles and the head against sums in double precision over dequantized weights.
#include <cmath>
#include <limits>

#include "../half.h"
#include "../weights.h"
#include "check.h"

using namespace outrider;

namespace {

struct Packed {
  Matrix matrix;
  std::vector<uint8_t> blocks, codes, scales;
};

// Random blocks of a format. Every byte is random but for the float16 scales, which stay small and finite.
Packed make(Format f, size_t rows, size_t columns, Random& random) {
  Packed p;
  p.blocks.resize(rows * row_bytes(f, columns));
  for (uint8_t& b : p.blocks) b = static_cast<uint8_t>(random.bits());
  const auto put_half = [&](size_t at, float v) {
    const uint16_t h = float_to_half(v);
    std::memcpy(p.blocks.data() + at, &h, 2);
  };
  const FormatInfo& fi = info(f);
  for (size_t at = 0; at < p.blocks.size(); at += fi.block_bytes) {
    if (f == Format::F32) {
      const float v = random.value();
      std::memcpy(p.blocks.data() + at, &v, 4);
    } else if (f == Format::F16) {
      put_half(at, random.value());
    } else if (f == Format::BF16) {
      const uint16_t h = static_cast<uint16_t>(bits_of(random.value()) >> 16);
      std::memcpy(p.blocks.data() + at, &h, 2);
    } else if (f == Format::Q6_K) {
      put_half(at + 208, random.value(0.01f));
    } else {
      put_half(at, random.value(0.05f));
      if (fi.scales == Scales::kMin || fi.scales == Scales::kSuperMin) put_half(at + 2, random.value(0.05f));
    }
  }
  p.matrix = packed_shape(f, rows, columns);
  p.codes.resize(p.matrix.tiles * p.matrix.tile_codes);
  p.scales.resize(p.matrix.tiles * p.matrix.tile_scales + 1);
  pack_matrix(f, rows, columns, p.blocks.data(), p.codes.data(), p.scales.data());
  p.matrix.codes = p.codes.data();
  p.matrix.scales = p.scales.data();
  return p;
}

// Activation rows in both forms.
struct Rows {
  std::vector<float> values, scale, half_sum, scaled_sum;
  std::vector<int8_t> codes;
  std::vector<int32_t> times8, times128;
  std::vector<QuantizedRow> quantized;
  std::vector<const float*> dense;
  size_t columns;

  Rows(const KernelTable& k, int rows, size_t n, Random& random) : values(random.values(rows * n, 3.0f)), columns(n) {
    const size_t groups = (n + 31) / 32;
    codes.resize(rows * groups * 32);
    scale.resize(rows * groups);
    scaled_sum.resize(rows * groups);
    half_sum.resize(rows * groups * 2);
    times8.resize(rows * groups);
    times128.resize(rows * groups);
    for (int r = 0; r < rows; ++r) {
      dense.push_back(values.data() + r * n);
      const QuantizedStore s{codes.data() + r * groups * 32, scale.data() + r * groups, half_sum.data() + r * groups * 2,
                             scaled_sum.data() + r * groups, times8.data() + r * groups, times128.data() + r * groups};
      if (n % 32 == 0) k.quantize_row(dense.back(), static_cast<int>(n), s);
      quantized.push_back({s.codes, s.scale, s.half_sum, s.scaled_sum, s.times8, s.times128});
    }
  }
  double at(bool quantized_form, int r, size_t k) const {
    const QuantizedRow& q = quantized[r];
    return quantized_form ? static_cast<double>(q.codes[k]) * q.scale[k / 32] : dense[r][k];
  }
};

std::vector<float> all_tiles(const KernelTable& k, const Packed& p, const Rows& x, int first, int rows) {
  std::vector<float> out(rows * p.matrix.tiles * kTile);
  for (size_t t = 0; t < p.matrix.tiles; ++t)
    k.linear_tile(p.matrix, t, p.matrix.codes, x.quantized.data() + first, x.dense.data() + first, rows, out.data() + t * kTile,
                  p.matrix.tiles * kTile);
  return out;
}

void test_format(Format f, size_t rows, size_t columns) {
  Random random(static_cast<uint32_t>(f) * 7919 + static_cast<uint32_t>(columns));
  const Packed p = make(f, rows, columns, random);
  const bool quantized = info(f).bits != 0;
  constexpr int kRows = 17;
  const Rows x(*all_kernels()[0], kRows, columns, random);
  std::vector<float> weights(columns), expected;
  const size_t stride = p.matrix.tiles * kTile;
  std::vector<std::vector<float>> results;
  for (const KernelTable* k : all_kernels()) {
    results.push_back(all_tiles(*k, p, x, 0, kRows));
    CHECK(same_bits(results.back(), results.front()), "%s, %s", info(f).name, k->name);
    for (int first = 0; first < kRows; ++first)  // among any others, and alone, a row is the same
      for (int n : {1, 2, 3, 5, 8, 11}) {
        if (first + n > kRows) continue;
        const std::vector<float> part = all_tiles(*k, p, x, first, n);
        CHECK(std::memcmp(part.data(), results[0].data() + first * stride, part.size() * 4) == 0, "%s, %s, row %d of %d",
              info(f).name, k->name, first, n);
      }
  }
  for (size_t n = 0; n < stride; ++n)
    for (int r = 0; r < kRows; ++r) {
      const float found = results[0][r * stride + n];
      if (n >= rows) {
        CHECK(found == 0.0f, "%s: padding row %zu is %g", info(f).name, n, found);
        continue;
      }
      dequantize_row(f, p.blocks.data() + n * row_bytes(f, columns), columns, weights.data());
      double sum = 0, size = 0;
      for (size_t k = 0; k < columns; ++k) {
        sum += weights[k] * x.at(quantized, r, k);
        size += std::fabs(weights[k] * x.at(quantized, r, k));
      }
      CHECK(std::fabs(found - sum) <= 2e-6 * size + 1e-30, "%s (%zu, %zu): %g, expected %g", info(f).name, n, columns, found, sum);
    }
  digest(results[0].data(), results[0].size() * 4);
}

}  // namespace

void test_linear() {
  for (int f = 0; f < kFormatCount; ++f) {
    const Format format = static_cast<Format>(f);
    const size_t block = info(format).block;
    test_format(format, 33, block == 1 ? 37 : block == 32 ? 96 : 512);
    test_format(format, 16, block == 1 ? 128 : block == 32 ? 640 : 256);
  }
}

void test_head() {
  Random random(5);
  Packed p = make(Format::F32, 100, 8, random);
  float* w = reinterpret_cast<float*>(p.codes.data());
  const auto set_row = [&](size_t row, float v) {
    for (size_t k = 0; k < 8; ++k) w[row / kTile * kTile * 8 + k * kTile + row % kTile] = v;
  };
  for (size_t row : {70u, 20u, 33u}) set_row(row, 50.0f);  // a tie
  set_row(4, std::numeric_limits<float>::quiet_NaN());
  Rows x(*all_kernels()[0], 3, 8, random);
  for (float& v : x.values) v = std::fabs(v) + 0.1f;
  for (const KernelTable* k : all_kernels()) {
    Best best[3], again[3];
    std::fill(best, best + 3, Best{-std::numeric_limits<float>::infinity(), 0});
    std::fill(again, again + 3, Best{-std::numeric_limits<float>::infinity(), 0});
    std::vector<float> logits(300);
    k->head_tiles(p.matrix, 0, p.matrix.tiles, nullptr, x.dense.data(), 3, best, logits.data(), 100);
    k->head_tiles(p.matrix, 0, p.matrix.tiles, nullptr, x.dense.data(), 3, again, nullptr, 0);
    for (int r = 0; r < 3; ++r) {
      CHECK(best[r].token == 20, "%s: token %d", k->name, best[r].token);
      CHECK(best[r].logit == logits[r * 100 + 20], "%s", k->name);
      CHECK(again[r].token == best[r].token && again[r].logit == best[r].logit, "%s", k->name);
      CHECK(std::isnan(logits[r * 100 + 4]), "%s", k->name);
    }
  }
}
