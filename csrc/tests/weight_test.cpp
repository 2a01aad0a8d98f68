// Weight: a stack packed by several threads equals its matrices packed one by one, and single weights can be read back through
// linear_tile. And huge_memory().
#include <algorithm>

#include "weights/huge_pages.h"
#include "runtime/threads.h"
#include "packed.h"

namespace outrider::test {
namespace {

// Pieces of all sizes, some freed again: none overlaps another.
void test_huge_memory(Random& random) {
  struct Piece {
    std::shared_ptr<uint8_t> memory;
    size_t bytes;
    uint8_t value;
  };
  std::vector<Piece> pieces;
  bool kept = true, aligned = true;
  for (int i = 0; i < 120; ++i) {
    const size_t bytes = i % 40 == 39 ? (20u << 20) + 1 : i % 3 ? random.below(3u << 20) : random.below(100);
    pieces.push_back({huge_memory(bytes), bytes, static_cast<uint8_t>(random.next())});
    aligned &= reinterpret_cast<uintptr_t>(pieces.back().memory.get()) % 64 == 0;
    std::fill_n(pieces.back().memory.get(), bytes, pieces.back().value);
    if (i % 2) std::swap(pieces.back(), pieces[random.below(pieces.size())]);
    if (i % 4 == 3) {
      const Piece& last = pieces.back();
      kept &= std::all_of(last.memory.get(), last.memory.get() + last.bytes, [&](uint8_t b) { return b == last.value; });
      pieces.pop_back();
    }
  }
  for (const Piece& p : pieces)
    kept &= std::all_of(p.memory.get(), p.memory.get() + p.bytes, [&](uint8_t b) { return b == p.value; });
  CHECK(kept && aligned, "huge_memory");
}

}  // namespace

void test_weight() {
  Random memory_sizes(5);
  test_huge_memory(memory_sizes);
  Random random(4);
  for (int i = 0; i < kFormatCount; ++i) {
    const Format f = static_cast<Format>(i);
    const size_t rows = 21, columns = 512, count = 3, bytes = rows * row_bytes(f, columns);
    const std::vector<uint8_t> blocks = random_blocks(f, count * rows, columns, random);
    const size_t groups = 4;
    const StoredScales all = random_scales(f, count * rows, groups, i % 2 == 0 && info(f).bits, random);
    const auto scales_of = [&](size_t m) {
      StoredScales part;
      if (all.groups == 0) return part;
      const size_t first = m * rows * groups, last = first + rows * groups;
      part.groups = groups;
      part.scale.assign(all.scale.begin() + first, all.scale.begin() + last);
      if (!all.zero.empty()) part.zero.assign(all.zero.begin() + first, all.zero.begin() + last);
      return part;
    };
    for (int threads : {1, 3}) {
      ThreadPool pool(threads);
      const Weight weight(f, count, rows, columns, blocks.data(), pool, all.view());
      const std::string what = note(info(f).name, "threads", threads);
      CHECK(weight.count() == count && weight.quantized() == (info(f).bits != 0), what);
      for (size_t m = 0; m < count; ++m) {
        const Packed alone(f, rows, columns, {blocks.begin() + m * bytes, blocks.begin() + (m + 1) * bytes}, scales_of(m));
        const Matrix packed = weight.matrix(m);
        CHECK(packed.rows == rows && packed.columns == columns && packed.tiles == 2, what);
        CHECK(std::memcmp(packed.codes, alone.codes.data(), alone.codes.size()) == 0, what);
        CHECK(std::memcmp(packed.scales, alone.scales.data(), packed.tiles * packed.tile_scales) == 0, what);
        if (m == 0 && threads == 1) digest.add(alone.codes), digest.add(packed.scales, packed.tiles * packed.tile_scales);
      }
    }
    // An activation row that is 127 in one column and 0 elsewhere yields that column's weights.
    const Packed w(f, rows, columns, {blocks.begin(), blocks.begin() + bytes}, scales_of(0));
    std::vector<std::vector<float>> values;
    for (size_t r = 0; r < rows; ++r) values.push_back(w.row(r));
    bool right = true;
    for (size_t k = 0; k < columns; ++k) {
      std::vector<float> x(columns);
      x[k] = 127.0f;
      const Activations a(1, columns, std::move(x), *tables().back());
      float out[2 * kTile];
      for (size_t t = 0; t < 2; ++t)
        tables().back()->linear_tile(w.matrix, t, w.matrix.tile(t + 1), a.quantized.data(), nullptr, a.dense.data(), 1,
                                     out + t * kTile, kTile);
      // Code and minimum may cancel, so the tolerance is relative to the format's largest weight.
      for (size_t r = 0; r < rows; ++r)
        right &= std::fabs(out[r] / 127.0f - values[r][k]) <= 1e-6f * (std::fabs(values[r][k]) + 64.0f);
    }
    CHECK(right, info(f).name);
  }
}

}  // namespace outrider::test
