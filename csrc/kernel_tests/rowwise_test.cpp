// Norms, quantization, gates, rope, softcap, softmax, and float16.
#include <cmath>
#include <functional>
#include <limits>

#include "../half.h"
#include "check.h"

using namespace outrider;

namespace {

const float kInfinity = std::numeric_limits<float>::infinity(), kNan = std::numeric_limits<float>::quiet_NaN();

// Runs `kernel` on every instruction set: all must give the bits of the first. Returns that result.
std::vector<float> everywhere(const char* what, const std::vector<float>& input,
                              const std::function<void(const KernelTable&, std::vector<float>&)>& kernel) {
  std::vector<float> first;
  for (const KernelTable* k : all_kernels()) {
    std::vector<float> v = input;
    kernel(*k, v);
    if (first.empty()) first = v;
    CHECK(same_bits(v, first), "%s on %s", what, k->name);
  }
  return first;
}

void test_norm(Random& random) {
  for (int n : {32, 64, 640, 1536}) {
    const std::vector<float> x = random.values(n, 4.0f), w = random.values(n);
    const auto out = everywhere("rms_norm", x, [&](const KernelTable& k, std::vector<float>& v) { k.rms_norm(x.data(), w.data(), 1e-6f, n, v.data()); });
    double squares = 0;
    for (float v : x) squares += static_cast<double>(v) * v;
    for (int i = 0; i < n; ++i) {
      const double expected = x[i] / std::sqrt(squares / n + 1e-6) * w[i];
      CHECK(std::fabs(out[i] - expected) <= 1e-6 * std::fabs(expected) + 1e-12, "n %d", n);
    }
    digest(out.data(), out.size() * 4);
  }
}

void test_gelu_and_softcap(Random& random) {
  std::vector<float> x = random.values(4096, 12.0f);
  const float special[] = {0.0f, -0.0f, 1e-30f, -1e-30f, 1e-4f, 50.0f, -50.0f, 1e4f, -1e4f, kInfinity, 3e38f};
  std::copy(std::begin(special), std::end(special), x.begin());
  const std::vector<float> ones(x.size(), 1.0f);
  const auto gated = everywhere("gelu_gate", x, [&](const KernelTable& k, std::vector<float>& v) { k.gelu_gate(x.data(), ones.data(), 4096, v.data()); });
  const auto capped = everywhere("softcap", x, [&](const KernelTable& k, std::vector<float>& v) { k.softcap(30.0f, 4096, v.data()); });
  for (size_t i = 0; i < x.size(); ++i) {
    const double v = x[i], u = 0.7978845608028654 * (v + 0.044715 * v * v * v);
    const double gelu = std::isinf(v) ? v : v / (1 + std::exp(-2 * u));
    if (std::fabs(v) < 1e30) CHECK(std::fabs(gated[i] - gelu) <= 1e-6 * std::fabs(v) + 1e-30, "gelu(%g) = %g, expected %g", v, gated[i], gelu);
    CHECK(std::fabs(capped[i] - 30 * std::tanh(v / 30)) <= 4e-7 * std::fabs(30 * std::tanh(v / 30)), "softcap(%g) = %g", v, capped[i]);
  }
  everywhere("gelu_gate of NaN", {x.begin(), x.begin() + 16}, [&](const KernelTable& k, std::vector<float>& v) { v[3] = kNan; k.gelu_gate(v.data(), ones.data(), 16, v.data()); });
  digest(gated.data(), gated.size() * 4);
  digest(capped.data(), capped.size() * 4);
}

void test_quantize(Random& random) {
  constexpr int n = 256, groups = n / 32;
  std::vector<float> x = random.values(n, 5.0f);
  for (int i = 32; i < 64; ++i) x[i] = 0.0f;
  for (int i = 64; i < 96; ++i) x[i] *= 1e-38f;  // too small to count
  x[100] = 1e30f;
  std::vector<std::vector<int8_t>> codes;
  for (const KernelTable* k : all_kernels()) {
    std::vector<int8_t> c(n);
    std::vector<float> scale(groups), half(2 * groups), scaled(groups);
    std::vector<int32_t> t8(groups), t128(groups);
    k->quantize_row(x.data(), n, {c.data(), scale.data(), half.data(), scaled.data(), t8.data(), t128.data()});
    codes.push_back(c);
    CHECK(codes.back() == codes.front(), "%s", k->name);
    for (int g = 0; g < groups; ++g) {
      int sum = 0;
      for (int i = 0; i < 32; ++i) {
        sum += c[32 * g + i];
        CHECK(std::fabs(c[32 * g + i] * static_cast<double>(scale[g]) - x[32 * g + i]) <= 0.5001 * scale[g] + 1e-30, "value %d", 32 * g + i);
      }
      CHECK(half[2 * g] + half[2 * g + 1] == sum && t8[g] == 8 * sum && t128[g] == 128 * sum, "group %d", g);
      CHECK(scaled[g] == scale[g] * static_cast<float>(sum), "group %d", g);
    }
  }
  digest(codes[0].data(), n);
}

void test_rope(Random& random) {
  const std::vector<float> x = random.values(64), c = random.values(32), s = random.values(32);
  const auto out = everywhere("rope", x, [&](const KernelTable& k, std::vector<float>& v) { k.rope(v.data(), c.data(), s.data(), 64, 0.5f); });
  for (int i = 0; i < 32; ++i) {
    CHECK(std::fabs(out[i] - 0.5 * (x[i] * c[i] - x[i + 32] * s[i])) < 1e-6, "dimension %d", i);
    CHECK(std::fabs(out[i + 32] - 0.5 * (x[i + 32] * c[i] + x[i] * s[i])) < 1e-6, "dimension %d", i + 32);
  }
  digest(out.data(), out.size() * 4);
}

void test_softmax(Random& random) {
  for (int position : {0, 1, 15, 16, 100}) {
    for (int first : {0, 7}) {
      if (first > position) continue;
      std::vector<float> scores = random.values(128, 20.0f);
      for (int i = 0; i < first; ++i) scores[i] = kNan;  // hidden positions may hold anything
      scores[position + 1] = kInfinity;
      std::vector<float> inverse;
      const auto weights = everywhere("softmax", scores, [&](const KernelTable& k, std::vector<float>& v) { inverse.push_back(k.softmax(v.data(), 0, first, position)); });
      double largest = -1e30, total = 0;
      for (int i = first; i <= position; ++i) largest = std::max<double>(largest, scores[i]);
      for (int i = first; i <= position; ++i) total += std::exp(scores[i] - largest);
      for (size_t i = 0; i < inverse.size(); ++i) CHECK(inverse[i] == inverse[0], "%d", position);
      CHECK(std::fabs(inverse[0] * total - 1) < 1e-6, "position %d", position);
      for (int i = 0; i < (position / 16 + 1) * 16; ++i) {
        const double expected = i < first || i > position ? 0 : std::exp(scores[i] - largest);
        CHECK(std::fabs(weights[i] - expected) <= 6e-6 * expected + 1e-37, "weight %d: %g, expected %g", i, weights[i], expected);
      }
      digest(weights.data(), (position / 16 + 1) * 64);
    }
  }
}

}  // namespace

void test_rowwise() {
  Random random(11);
  test_norm(random);
  test_gelu_and_softcap(random);
  test_quantize(random);
  test_rope(random);
  test_softmax(random);
}

void test_halves() {
  for (uint32_t h = 0; h < 65536; ++h) {
    const float f = half_to_float(static_cast<uint16_t>(h));
    const uint32_t exponent = h >> 10 & 31, mantissa = h & 1023;
    const double magnitude = exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, static_cast<int>(exponent) - 25);
    if (exponent == 31) {
      CHECK(mantissa ? std::isnan(f) : std::isinf(f), "%04x", h);
      continue;
    }
    CHECK(f == (h & 0x8000 ? -magnitude : magnitude) && std::signbit(f) == (h >> 15 != 0), "%04x", h);
    CHECK(float_to_half(f) == h, "%04x", h);
    // The middle between this and the next goes to the even one, what lies beside it to the nearer.
    if (exponent < 30) {
      const float next = half_to_float(static_cast<uint16_t>(h + 1)), middle = (f + next) / 2;
      CHECK(float_to_half(middle) == (h % 2 ? h + 1 : h), "%04x", h);
      CHECK(float_to_half(std::nextafter(middle, f)) == h, "%04x", h);
      CHECK(float_to_half(std::nextafter(middle, next)) == h + 1, "%04x", h);
    }
  }
  CHECK(float_to_half(65520.0f) == 0x7c00 && float_to_half(-1e9f) == 0xfc00 && float_to_half(65519.0f) == 0x7bff, "range");
  CHECK(std::isnan(half_to_float(float_to_half(kNan))), "NaN");
}
