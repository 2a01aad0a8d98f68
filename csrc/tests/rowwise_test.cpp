// Norms, quantization, gates, rotary embeddings and softmax: accuracy against double, equality between instruction sets.
#include <algorithm>

#include "packed.h"

namespace outrider::test {
namespace {

size_t padded(size_t n) { return (n + 15) / 16 * 16; }

std::vector<float> padded_bells(Random& random, size_t n, float scale) {
  std::vector<float> x = random.bells(n, scale);
  x.resize(padded(n), 0.0f);
  return x;
}

// Runs compute(table) -> vector on every table, checks that all results have the same bits, and returns them.
template <class Compute> std::vector<float> agreed(const std::string& what, Compute compute) {
  const std::vector<float> definition = compute(portable());
  for (const KernelTable* k : tables()) CHECK(same_bits(compute(*k), definition), std::string(k->name) + " " + what);
  digest.add(definition);
  return definition;
}

bool near(double got, double wanted, double relative, double absolute = 0) {
  return std::fabs(got - wanted) <= relative * std::fabs(wanted) + absolute;
}

void test_norm(Random& random) {
  for (size_t n : {1, 15, 16, 17, 31, 48, 250, 256, 641})
    for (float scale : {1.0f, 1e-4f, 1e6f})
      for (bool weighted : {false, true}) {
        const std::vector<float> x = padded_bells(random, n, scale), w = padded_bells(random, n, 2.0f);
        const std::string what = note("rms_norm", "n", n, "weighted", weighted);
        const std::vector<float> got = agreed(what, [&](const KernelTable& k) {
          std::vector<float> out(padded(n), 7.0f);
          k.rms_norm(x.data(), weighted ? w.data() : nullptr, 1e-6f, static_cast<int>(n), out.data());
          return out;
        });
        double squares = 0;
        for (float v : x) squares += double{v} * v;
        const double factor = 1 / std::sqrt(squares / static_cast<double>(n) + 1e-6);
        bool close = true;
        for (size_t i = 0; i < padded(n); ++i) close &= near(got[i], x[i] * factor * (weighted ? w[i] : 1.0f), 2e-6);
        CHECK(close, what);
        const std::vector<float> in_place = agreed(what, [&](const KernelTable& k) {
          std::vector<float> out = x;
          k.rms_norm(out.data(), weighted ? w.data() : nullptr, 1e-6f, static_cast<int>(n), out.data());
          return out;
        });
        CHECK(same_bits(in_place, got), what);
      }
  const std::vector<float> zeros(32, 0.0f);
  const std::vector<float> got = agreed("rms_norm of zeros", [&](const KernelTable& k) {
    std::vector<float> out(32, 7.0f);
    k.rms_norm(zeros.data(), nullptr, 1e-6f, 32, out.data());
    return out;
  });
  CHECK(same_bits(got, zeros), "rms_norm of zeros");
}

// The result of quantize_row on one row, by field.
struct Quantized {
  std::vector<int8_t> codes, low, high;
  std::vector<float> scale, half_sum, scaled_sum;
  std::vector<int32_t> times2, times8, times128;

  Quantized(const std::vector<float>& x, const KernelTable& k, float static_scale = 0.0f) {
    const Activations row(1, x.size(), x, k, static_scale);
    for (const ActivationDigits& d : row.digits) {
      low.insert(low.end(), d.low, d.low + kGroup);
      high.insert(high.end(), d.high, d.high + kGroup);
    }
    for (const ActivationGroup& g : row.groups) {
      codes.insert(codes.end(), g.codes, g.codes + kGroup);
      half_sum.insert(half_sum.end(), g.half_sum, g.half_sum + 2);
      scale.push_back(g.scale), scaled_sum.push_back(g.scaled_sum);
      times2.push_back(g.times2), times8.push_back(g.times8), times128.push_back(g.times128);
    }
  }
  bool same(const Quantized& b) const {
    return codes == b.codes && low == b.low && high == b.high && same_bits(scale, b.scale) && same_bits(half_sum, b.half_sum) &&
           same_bits(scaled_sum, b.scaled_sum) && times2 == b.times2 && times8 == b.times8 && times128 == b.times128;
  }
  // The digits make up the codes, and are small enough for products with unsigned bytes.
  bool digits_right() const {
    bool right = true;
    for (size_t i = 0; i < codes.size(); ++i)
      right &= low[i] + 16 * high[i] == codes[i] && low[i] >= -8 && low[i] <= 7 && high[i] >= -8 && high[i] <= 8;
    return right;
  }
};

void test_quantize(Random& random) {
  for (size_t n : {32, 64, 96, 640}) {
    std::vector<float> x = random.bells(n, 5.0f);
    if (n > 64) {
      for (size_t i = 0; i < 32; ++i) x[i] = 0.0f;
      for (size_t i = 64; i < 96; ++i) x[i] = static_cast<float>(static_cast<int>(i) - 80) + 0.5f;  // ties: the scale is 1
      x[70] = 127.0f;
    }
    const Quantized definition(x, portable());
    for (const KernelTable* k : tables()) CHECK(Quantized(x, *k).same(definition), note(k->name, "n", n));
    digest.add(definition.codes), digest.add(definition.scale), digest.add(definition.half_sum);
    digest.add(definition.scaled_sum), digest.add(definition.times8), digest.add(definition.times128);
    bool right = definition.digits_right(), sums = true;
    for (size_t g = 0; g < n / 32; ++g) {
      float largest = 0;
      int halves[2] = {0, 0};
      for (size_t i = 0; i < 32; ++i) {
        largest = std::max(largest, std::fabs(x[32 * g + i]));
        halves[i / 16] += definition.codes[32 * g + i];
      }
      const float scale = definition.scale[g];
      right &= scale == largest / 127.0f;
      for (size_t i = 0; i < 32; ++i) {
        const int code = definition.codes[32 * g + i];
        right &= code >= -127 && std::fabs(double{x[32 * g + i]} - double{scale} * code) <= 0.50001 * scale;
      }
      const int sum = halves[0] + halves[1];
      sums &= definition.half_sum[2 * g] == static_cast<float>(halves[0]) &&
              definition.half_sum[2 * g + 1] == static_cast<float>(halves[1]);
      sums &= definition.times2[g] == 2 * sum && definition.times8[g] == 8 * sum && definition.times128[g] == 128 * sum;
      sums &= definition.scaled_sum[g] == scale * static_cast<float>(sum);
    }
    CHECK(right, note("quantize_row", "n", n));
    CHECK(sums, note("quantize_row", "n", n));
    for (size_t i = 64; i < 96 && n > 64; ++i)  // to even
      CHECK(i == 70 || definition.codes[i] == static_cast<int>(std::nearbyint(x[i])), note("ties", "column", i));
  }
  // Values that no scale can represent: all instruction sets agree, and codes stay within +-127.
  std::vector<std::vector<float>> odd;
  for (float special : {not_a_number(), infinity(), -infinity(), 3e38f, -1e-38f, 1e-45f, 1e-40f})
    for (int at : {0, 5, 15, 16, 31})
      for (float others : {0.0f, 1.0f, 1e-39f}) {
        odd.push_back(random.bells(64, others));
        odd.back()[at] = special;
      }
  for (size_t i = 0; i < odd.size(); ++i) {
    const Quantized definition(odd[i], portable());
    const bool in_range = std::all_of(definition.codes.begin(), definition.codes.end(), [](int8_t c) { return c >= -127; });
    CHECK(in_range, note("quantize_row of odd values", "case", i));
    for (const KernelTable* k : tables()) CHECK(Quantized(odd[i], *k).same(definition), note(k->name, "odd case", i));
    digest.add(definition.codes), digest.add(definition.scale);
  }
}

// Static scales: codes and rounded values are those of round-half-even and a clamp to int8; a NaN stays NaN.
void test_static(Random& random) {
  const float scale = 0.0625f;
  std::vector<float> x = random.bells(96, 4.0f);
  for (int i = 0; i < 32; ++i) x[i] = scale * (static_cast<float>(i - 16) + 0.5f);  // ties
  x[32] = 1e9f, x[33] = -1e9f, x[34] = infinity(), x[35] = -infinity(), x[36] = 127.5f * scale, x[37] = -128.5f * scale;
  std::vector<float> expected;
  for (float v : x) expected.push_back(std::min(127.0f, std::max(-128.0f, std::nearbyint(v / scale))) * scale);
  for (const KernelTable* k : tables()) {
    std::vector<float> rounded = x;
    k->round_row(scale, static_cast<int>(x.size()), rounded.data());
    bool same = true;
    for (size_t i = 0; i < x.size(); ++i) same &= rounded[i] == expected[i];
    CHECK(same, k->name);
    const Quantized codes(x, *k, scale);
    CHECK(codes.same(Quantized(x, portable(), scale)), k->name);
    bool equal = true;
    for (size_t i = 0; i < x.size(); ++i) equal &= static_cast<float>(codes.codes[i]) * codes.scale[i / 32] == expected[i];
    CHECK(equal, k->name);
    if (k == &portable()) digest.add(rounded), digest.add(codes.codes), digest.add(codes.scaled_sum);

    std::vector<float> with_nan = x;
    with_nan[40] = not_a_number();
    const Quantized marked(with_nan, *k, scale);
    CHECK(marked.scale[0] == scale && std::isnan(marked.scale[1]) && std::isnan(marked.scaled_sum[1]), k->name);
    k->round_row(scale, static_cast<int>(x.size()), with_nan.data());
    CHECK(std::isnan(with_nan[40]) && with_nan[41] == expected[41], k->name);
  }
}

void test_plain(Random& random) {
  for (size_t n : {1, 16, 33, 640}) {
    const std::vector<float> x = padded_bells(random, n, 2.0f), y = padded_bells(random, n, 3.0f);
    std::vector<float> sum(padded(n)), product(padded(n)), scaled(padded(n));
    for (size_t i = 0; i < padded(n); ++i) sum[i] = y[i] + x[i], product[i] = y[i] * x[i], scaled[i] = y[i] * 0.3f;
    const int count = static_cast<int>(n);
    for (const KernelTable* k : tables()) {
      std::vector<float> out = y;
      k->add_row(x.data(), count, out.data());
      CHECK(same_bits(out, sum), note(k->name, "add_row", n));
      out = y;
      k->multiply_row(x.data(), count, out.data());
      CHECK(same_bits(out, product), note(k->name, "multiply_row", n));
      out = y;
      k->scale_row(0.3f, count, out.data());
      CHECK(same_bits(out, scaled), note(k->name, "scale_row", n));
    }
  }
}

void test_gate(Random& random) {
  std::vector<float> gate;
  for (int i = -1200; i <= 1200; ++i) gate.push_back(static_cast<float>(i) / 100.0f);  // 2401 values: not a multiple of 16
  for (float v : {0.0f, -0.0f, 1e-30f, -1e-30f, 50.0f, -50.0f, 1000.0f, -1000.0f}) gate.push_back(v);
  const size_t n = gate.size();
  gate.resize(padded(n), 0.0f);
  const std::vector<float> up = padded_bells(random, n, 2.0f);
  const std::vector<float> got = agreed("gelu_gate", [&](const KernelTable& k) {
    std::vector<float> out(padded(n), 7.0f);
    k.gelu_gate(gate.data(), up.data(), static_cast<int>(n), out.data());
    return out;
  });
  double worst = 0;
  for (size_t i = 0; i < padded(n); ++i) {
    const double x = gate[i], u = 0.7978845608028654 * (x + 0.044715 * x * x * x);
    const double wanted = x / (1 + std::exp(-2 * u)) * up[i];
    worst = std::max(worst, std::fabs(got[i] - wanted) / (1e-6 * std::fabs(wanted) + 1e-7));
  }
  CHECK(worst <= 1, "gelu_gate: " + std::to_string(worst) + " of the tolerance");
  const std::vector<float> ones(32, 1.0f);  // non-finite values affect only their lane
  const std::vector<float> odd = agreed("gelu_gate of odd values", [&](const KernelTable& k) {
    std::vector<float> x = ones, out(32);
    x[3] = not_a_number(), x[9] = infinity(), x[20] = -infinity();
    k.gelu_gate(x.data(), ones.data(), 32, out.data());
    return out;
  });
  CHECK(odd[3] != odd[3] && odd[9] == infinity() && near(odd[0], 0.841192, 1e-6) && odd[0] == odd[31], "gelu_gate of odd values");
}

void test_rope(Random& random) {
  for (int dims : {32, 64, 96, 256}) {
    const std::vector<float> head = random.bells(dims), cosine = random.bells(dims / 2), sine = random.bells(dims / 2);
    const std::string what = note("rope", "dims", dims);
    const std::vector<float> got = agreed(what, [&](const KernelTable& k) {
      std::vector<float> out = head;
      k.rope(out.data(), cosine.data(), sine.data(), dims, 0.7f);
      return out;
    });
    bool close = true;
    const int half = dims / 2;
    for (int i = 0; i < half; ++i) {
      const double a = head[i], b = head[half + i], c = cosine[i], s = sine[i];
      close &= near(got[i], (a * c - b * s) * 0.7f, 0, 3e-7 * (std::fabs(a * c) + std::fabs(b * s)));
      close &= near(got[half + i], (b * c + a * s) * 0.7f, 0, 3e-7 * (std::fabs(b * c) + std::fabs(a * s)));
    }
    CHECK(close, what);
  }
}

std::vector<float> softcapped(const KernelTable& k, float cap, std::vector<float> x) {
  const int n = static_cast<int>(x.size());
  x.resize(padded(x.size()), 0.0f);
  k.softcap(cap, n, x.data());
  return x;
}

void test_softcap(Random& random) {
  std::vector<float> x = random.bells(200, 40.0f), rising;
  for (float v : {0.0f, -0.0f, 1e-20f, 18.7f, 18.8f, -18.75f, 1e4f, -1e30f, 3e38f}) x.push_back(v);
  for (int i = 0; i < 4096; ++i) rising.push_back(static_cast<float>(i - 2048) / 32.0f);
  for (float cap : {30.0f, 50.0f}) {
    const std::vector<float> got = agreed("softcap", [&](const KernelTable& k) { return softcapped(k, cap, x); });
    double worst = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      const double wanted = cap * std::tanh(x[i] / static_cast<double>(cap));
      worst = std::max(worst, std::fabs(got[i] - wanted) / (1e-6 * std::fabs(wanted) + 1e-30));
    }
    CHECK(worst <= 1, "softcap: " + std::to_string(worst) + " of the tolerance");
    const std::vector<float> capped = agreed("softcap in order", [&](const KernelTable& k) { return softcapped(k, cap, rising); });
    CHECK(std::is_sorted(capped.begin(), capped.end()), "softcap is applied after the argmax, so it must be monotone");
  }
  const std::vector<float> odd = agreed("softcap of odd values", [](const KernelTable& k) {
    return softcapped(k, 30.0f, {not_a_number(), infinity(), -infinity(), 1.0f});
  });
  CHECK(odd[1] == 30.0f && odd[2] == -30.0f, "softcap of infinity");
  CHECK(odd[0] != odd[0], "softcap of NaN is NaN: otherwise an invalid logit becomes the largest");
}

void test_sum_exp(Random& random) {
  for (int n : {1, 15, 16, 17, 255, 256, 1000, 5003}) {
    std::vector<float> x = random.bells(n, 6.0f);
    for (int i = 3; i < n; i += 7) x[i] = i % 2 ? -infinity() : not_a_number();
    float top = -infinity();
    for (float v : x) top = v > top ? v : top;
    for (float scale : {1.0f, 0.4f, 3.0f}) {
      double wanted = 0;
      for (float v : x)
        if (v == v) wanted += std::exp((static_cast<double>(v) - top) * scale);
      const std::vector<float> got = agreed("sum_exp", [&](const KernelTable& k) {
        return std::vector<float>{static_cast<float>(k.sum_exp(x.data(), n, top, scale))};
      });
      CHECK(std::fabs(got[0] - wanted) < 1e-6 * wanted, "sum_exp");
    }
  }
}

void test_softmax(Random& random) {
  for (float spread : {0.1f, 3.0f, 100.0f})
    for (int begin : {0, 1, 7, 15, 16, 40})
      for (int seen : {1, 2, 15, 16, 17, 100}) {
        const size_t first = begin, end = begin + seen, size = (end + 15) / 16 * 16;
        const auto sees = [&](size_t i) { return i >= first && i < end; };
        std::vector<float> scores = random.bells(size, spread);
        for (size_t i = 0; i < size; ++i)
          if (!sees(i)) scores[i] = i % 2 ? not_a_number() : infinity();
        const std::string what = note("softmax", "begin", begin, "seen", seen);
        const std::vector<float> got = agreed(what, [&](const KernelTable& k) {
          std::vector<float> out = scores;
          const float inverse = k.softmax(out.data(), begin, begin + seen);
          out.push_back(inverse);
          return out;
        });
        double largest = -HUGE_VAL, sum = 0;
        for (size_t i = 0; i < size; ++i)
          if (sees(i)) largest = std::max<double>(largest, scores[i]);
        bool close = true, zeros = true;
        for (size_t i = first / 16 * 16; i < size; ++i) {
          const double weight = sees(i) ? std::exp(scores[i] - largest) : 0.0;
          sum += weight;
          close &=
              near(got[i], weight, 1e-6 + 6e-8 * (largest - (sees(i) ? scores[i] : largest)), 2e-38);  // rounding of the difference
          zeros &= sees(i) || got[i] == 0.0f;
        }
        close &= near(got[size], 1 / sum, 2e-6);
        CHECK(close, what);
        CHECK(zeros, what);
      }
}

}  // namespace

void test_rowwise() {
  Random random(5);
  test_norm(random);
  test_quantize(random);
  test_plain(random);
  test_gate(random);
  test_rope(random);
  test_softcap(random);
  test_softmax(random);
  test_sum_exp(random);
  Random own(13);
  test_static(own);
}

}  // namespace outrider::test
