// linear_tile with panels of activations, for more rows and columns than linear_test.cpp has: several panels, and more groups than
// are unpacked at once. Against every row alone.
#include "packed.h"

namespace outrider::test {

void test_panels() {
  Random random(31);
  constexpr size_t kColumns = 1792, kOutputs = 20;  // 56 groups; the second tile has padding rows
  constexpr int kMost = 45;
  for (int i = 0; i < kFormatCount; ++i) {
    const Format f = static_cast<Format>(i);
    if (info(f).bits == 0) continue;
    const Packed w(f, kOutputs, kColumns, random_blocks(f, kOutputs, kColumns, random),
                   random_scales(f, kOutputs, 1, false, random));
    std::vector<float> x = random.bells(kMost * kColumns, 3.0f);
    for (size_t k = 0; k < kColumns; k += 3) x[13 * kColumns + k] = not_a_number();  // in one row of the batch
    const Activations a(kMost, kColumns, std::move(x));
    const Panels panels(a.quantized, kColumns / kGroup);
    for (size_t t = 0; t < w.matrix.tiles; ++t) {
      float alone[kMost][kTile];
      for (int r = 0; r < kMost; ++r)
        portable().linear_tile(w.matrix, t, w.matrix.tile(t), a.quantized.data() + r, nullptr, nullptr, 1, alone[r], kTile);
      for (const KernelTable* k : tables())
        for (int rows : {12, 13, 16, 28, 29, 33, kMost}) {
          float out[kMost][kTile];
          k->linear_tile(w.matrix, t, w.matrix.tile(t), a.quantized.data(), panels.data(), nullptr, rows, out[0], kTile);
          CHECK(same_bits(out[0], alone[0], rows * kTile), note(std::string(k->name) + " " + info(f).name, "rows", rows));
        }
    }
  }
}

}  // namespace outrider::test
