// head_tiles: the argmax over the vocabulary, against a naive search of linear_tile's results.
#include "packed.h"

namespace outrider::test {
namespace {

const float kCanary = -1.2345e30f;
constexpr size_t kRows = 17;

std::vector<float> naive_logits(const KernelTable& k, const Packed& w, const Activations& a, float output_scale) {
  std::vector<float> logits(a.rows * w.rows), out(a.rows * kTile);
  for (size_t t = 0; t < w.matrix.tiles; ++t) {
    k.linear_tile(w.matrix, t, w.matrix.tile(t + 1), w.quantized() ? a.quantized.data() : nullptr, nullptr,
                  w.quantized() ? nullptr : a.dense.data(), static_cast<int>(a.rows), out.data(), kTile);
    for (size_t r = 0; r < a.rows; ++r)
      for (size_t i = 0; i < kTile && t * kTile + i < w.rows; ++i) logits[r * w.rows + t * kTile + i] = out[r * kTile + i];
  }
  if (output_scale != 0.0f)
    for (float& x : logits) {
      float lanes[kTile] = {x};
      k.round_row(output_scale, kTile, lanes);
      x = lanes[0];
    }
  return logits;
}

Best naive_best(const float* logits, size_t count) {
  Best best{-infinity(), 0};
  for (size_t i = 0; i < count; ++i)
    if (logits[i] > best.logit) best = {logits[i], static_cast<int32_t>(i)};
  return best;
}

bool same(const std::vector<Best>& a, const std::vector<Best>& b) {
  for (size_t i = 0; i < a.size(); ++i)
    if (!same_bits(a[i].logit, b[i].logit) || a[i].token != b[i].token) return false;
  return a.size() == b.size();
}

void check_head(const Packed& w, const Activations& a, const std::string& what, float output_scale = 0.0f) {
  std::vector<Best> definition;
  for (const KernelTable* k : tables()) {
    const std::vector<float> logits = naive_logits(*k, w, a, output_scale);
    std::vector<Best> wanted;
    for (size_t r = 0; r < a.rows; ++r) wanted.push_back(naive_best(logits.data() + r * w.rows, w.rows));
    if (definition.empty()) {
      definition = wanted;
      for (const Best& b : wanted) digest.add(&b.logit, 1), digest.add(&b.token, 1);
    }
    CHECK(same(wanted, definition), std::string(k->name) + " " + what);
    for (size_t rows : {1, 2, 7, 8, 9, 17}) {
      const std::string here = note(std::string(k->name) + " " + what, "rows", rows);
      const std::vector<Best> expected(wanted.begin(), wanted.begin() + rows);
      const QuantizedRow* quantized = w.quantized() ? a.quantized.data() : nullptr;
      const float* const* dense = w.quantized() ? nullptr : a.dense.data();
      const Panels all(w.quantized() ? a.quantized : std::vector<QuantizedRow>(), w.columns / kGroup);
      const ActivationPanel* panels = all.data();
      const int n = static_cast<int>(rows);

      std::vector<Best> best(rows, Best{-infinity(), 0});
      k->head_tiles(w.matrix, 0, w.matrix.tiles, quantized, panels, dense, n, best.data(), nullptr, 0, output_scale);
      CHECK(same(best, expected), here);

      const size_t stride = w.rows + 3;
      std::vector<float> out(rows * stride - 3, kCanary);
      best.assign(rows, Best{-infinity(), 0});
      const size_t half = w.matrix.tiles / 2;  // the second half first, as a thread that then steals the first
      k->head_tiles(w.matrix, half, w.matrix.tiles, quantized, panels, dense, n, best.data(), out.data(), stride, output_scale);
      k->head_tiles(w.matrix, 0, half, quantized, panels, dense, n, best.data(), out.data(), stride, output_scale);
      CHECK(same(best, expected), here);
      bool written = true;
      for (size_t r = 0; r < rows; ++r) {
        written &= same_bits(out.data() + r * stride, logits.data() + r * w.rows, w.rows);
        for (size_t g = w.rows; g < stride && r + 1 < rows; ++g) written &= out[r * stride + g] == kCanary;
      }
      CHECK(written, here);
    }
  }
}

}  // namespace

void test_head() {
  Random random(3);
  for (Format f : {Format::F32, Format::F16, Format::BF16, Format::Q4_0, Format::Q8_0, Format::Q4_K, Format::Q6_K}) {
    const size_t columns = 256, bytes = row_bytes(f, columns);
    for (size_t vocabulary : {1, 15, 83}) {
      std::vector<uint8_t> blocks = random_blocks(f, vocabulary, columns, random);
      const Activations a(kRows, columns, random.bells(kRows * columns));
      const std::string what = note(info(f).name, "vocabulary", vocabulary);
      check_head(Packed(f, vocabulary, columns, blocks), a, what);

      // Ties: the second half of the vocabulary repeats the first.
      std::vector<uint8_t> repeated = blocks;
      for (size_t i = vocabulary / 2; i < vocabulary && vocabulary > 1; ++i)
        std::memcpy(&repeated[i * bytes], &blocks[(i - vocabulary / 2) % (vocabulary / 2) * bytes], bytes);
      check_head(Packed(f, vocabulary, columns, repeated), a, what + " ties");

      // All logits are equal: the result is token 0.
      for (size_t i = 1; i < vocabulary; ++i) std::memcpy(&repeated[i * bytes], &blocks[0], bytes);
      check_head(Packed(f, vocabulary, columns, repeated), a, what + " one value");

      // Tokens with a NaN logit, and a row with nothing else.
      for (size_t i = 0; i < vocabulary; i += i % 3 + 1) {
        const uint32_t nan32 = 0x7fc00000u;
        const uint16_t nan16 = f == Format::BF16 ? 0x7fc0 : 0x7e00;
        uint8_t* at = &blocks[i * bytes] + (info(f).bits ? half_offsets(f)[0] : 0);
        if (f == Format::F32) std::memcpy(at, &nan32, 4);
        else std::memcpy(at, &nan16, 2);
      }
      std::vector<float> x = random.bells(kRows * columns);
      for (size_t k = 0; k < columns; ++k) x[5 * columns + k] = not_a_number();
      check_head(Packed(f, vocabulary, columns, blocks), Activations(kRows, columns, std::move(x)), what + " NaN");
    }
  }
  // A head of 2-bit codes whose input and output are rounded to static scales: many logits are equal.
  const size_t columns = 256;
  for (size_t vocabulary : {15, 83}) {
    StoredScales scales = random_scales(Format::I2, vocabulary, 1, false, random);
    const Packed w(Format::I2, vocabulary, columns, random_blocks(Format::I2, vocabulary, columns, random), std::move(scales));
    const Activations a(kRows, columns, random.bells(kRows * columns), portable(), 0.03125f);
    check_head(w, a, note("static I2", "vocabulary", vocabulary), 0.25f);
  }
}

}  // namespace outrider::test
