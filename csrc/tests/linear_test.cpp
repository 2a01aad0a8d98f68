// linear_tile on packed matrices of every format: against a reference in double, and bit for bit independent of the batch.
#include <algorithm>

#include "packed.h"

namespace outrider::test {
namespace {

constexpr int kMost = 17;  // rows: two full blocks of a kernel and one more
const float kCanary = -1.2345e30f;

// Rows `chosen` of `a` times one tile, into (rows, stride).
void multiply(const KernelTable& k, const Packed& w, size_t tile, const Activations& a, const std::vector<int>& chosen, float* out,
              size_t stride) {
  std::vector<QuantizedRow> quantized;
  std::vector<const float*> dense;
  for (int r : chosen) {
    if (w.quantized()) quantized.push_back(a.quantized[r]);
    dense.push_back(a.dense[r]);
  }
  const Panels panels(quantized, w.columns / kGroup);
  k.linear_tile(w.matrix, tile, w.matrix.tile(tile + 1), w.quantized() ? quantized.data() : nullptr, panels.data(),
                w.quantized() ? nullptr : dense.data(), static_cast<int>(chosen.size()), out, stride);
}

// Every row alone: (rows, padded columns of the output).
std::vector<float> each_alone(const KernelTable& k, const Packed& w, const Activations& a) {
  const size_t width = w.matrix.tiles * kTile;
  std::vector<float> out(a.rows * width);
  for (size_t t = 0; t < w.matrix.tiles; ++t)
    for (size_t r = 0; r < a.rows; ++r) multiply(k, w, t, a, {static_cast<int>(r)}, out.data() + r * width + t * kTile, width);
  return out;
}

void check_accuracy(const Packed& w, const Activations& a, const std::vector<float>& alone, size_t good_rows,
                    const std::string& what) {
  const size_t width = w.matrix.tiles * kTile;
  bool close = true, padding = true;
  for (size_t n = 0; n < w.rows; ++n) {
    const std::vector<float> row = w.row(n);
    for (size_t r = 0; r < good_rows; ++r) {
      // The tolerance is relative to a group's largest weight: the products with scale and minimum are rounded separately.
      double sum = 0, magnitude = 0, largest = 0;
      for (size_t k = 0; k < w.columns; ++k) {
        if (k % 32 == 0) {
          largest = 0;
          for (size_t j = k; j < std::min(k + 32, w.columns); ++j) largest = std::max<double>(largest, std::fabs(row[j]));
        }
        const double x = a.value(w.quantized(), r, k);
        sum += row[k] * x;
        magnitude += (w.quantized() ? largest : std::fabs(row[k])) * std::fabs(x);
      }
      close &= std::fabs(sum - alone[r * width + n]) <= 1e-6 * magnitude + 1e-30;
    }
  }
  for (size_t r = 0; r < good_rows; ++r)
    for (size_t n = w.rows; n < width; ++n) padding &= alone[r * width + n] == 0.0f;
  CHECK(close, what);
  CHECK(padding, what);
}

// Batches of 1 .. kMost rows: each row has the same bits as alone, and gaps between output rows are not written.
void check_batches(const KernelTable& k, const Packed& w, const Activations& a, const std::vector<float>& alone, int step,
                   const std::string& what) {
  const size_t width = w.matrix.tiles * kTile;
  for (int rows = 1; rows <= kMost; rows += rows > 2 ? step : 1) {
    bool same = true, gaps = true;
    for (size_t t = 0; t < w.matrix.tiles; ++t) {
      std::vector<int> chosen;
      for (int i = 0; i < rows; ++i) chosen.push_back((i * 5 + rows + static_cast<int>(t)) % static_cast<int>(a.rows));
      const size_t stride = rows % 2 ? 16 : 21;
      std::vector<float> out((rows - 1) * stride + 16, kCanary);
      multiply(k, w, t, a, chosen, out.data(), stride);
      for (int i = 0; i < rows; ++i) {
        same &= same_bits(out.data() + i * stride, alone.data() + chosen[i] * width + t * kTile, 16);
        for (size_t g = 16; g < stride && i + 1 < rows; ++g) gaps &= out[i * stride + g] == kCanary;
      }
    }
    CHECK(same, note(what, "batch", rows));
    CHECK(gaps, note(what, "batch", rows));
  }
}

void check_matrix(const Packed& w, const Activations& a, size_t good_rows, int step, const std::string& what) {
  std::vector<float> definition;
  for (const KernelTable* k : tables()) {
    const std::string here = std::string(k->name) + " " + what;
    const std::vector<float> alone = each_alone(*k, w, a);
    if (definition.empty()) {
      definition = alone;
      check_accuracy(w, a, alone, good_rows, here);
      digest.add(alone);
    }
    CHECK(same_bits(alone, definition), here);
    check_batches(*k, w, a, alone, step, here);
  }
}

}  // namespace

void test_linear() {
  Random random(2);
  for (int i = 0; i < kFormatCount; ++i) {
    const Format f = static_cast<Format>(i);
    const bool dense = info(f).bits == 0, grouped = info(f).scales == Scales::kGroups, single = info(f).block == 1;
    const size_t block = info(f).block;
    const std::vector<size_t> widths = single         ? std::vector<size_t>{1, 37, 2, 3, 4, 130}
                                       : block == 256 ? std::vector<size_t>{768, 256}
                                                      : std::vector<size_t>{11 * block, block, 3 * block};
    for (size_t columns : widths)
      for (size_t rows : {1, 16, 35}) {
        const bool each_group = rows == 16;  // otherwise one scale for the row
        StoredScales scales = random_scales(f, rows, each_group ? columns / kGroup : 1, !dense && rows != 1, random);
        const Packed w(f, rows, columns, random_blocks(f, rows, columns, random), std::move(scales));
        std::vector<float> x = random.bells((kMost + 1) * columns, 3.0f);
        for (size_t k = 0; k < std::min<size_t>(columns, 40); ++k) x[3 * columns + k] = 0.0f;  // a group of zeros
        for (size_t k = 0; k < columns; k += 3) x[kMost * columns + k] = not_a_number();       // NaN in another row of the batch
        x[kMost * columns] = infinity();
        const Activations a(kMost + 1, columns, std::move(x), portable(), grouped && rows == 16 ? 0.03125f : 0.0f);
        const int step = rows == 35 && columns == widths[single] ? 1 : 5;  // every batch size, or some
        check_matrix(w, a, kMost, step, note(info(f).name, "rows", rows, "columns", columns));
      }
    // The largest possible products: integer sums must neither saturate nor overflow.
    for (Fill fill : {Fill::kLargestCodes, Fill::kSmallestCodes}) {
      if (dense) continue;
      const size_t columns = 512, rows = 16;
      const Packed w(f, rows, columns, random_blocks(f, rows, columns, random, fill), random_scales(f, rows, 1, false, random));
      std::vector<float> x(4 * columns);
      for (size_t k = 0; k < columns; ++k) {
        x[k] = 1.0f;
        x[columns + k] = -1.0f;
        x[2 * columns + k] = k % 2 ? 1.0f : -1.0f;
        x[3 * columns + k] = k % 4 < 2 ? 1.0f : -1.0f;
      }
      const Activations a(4, columns, std::move(x), portable(), grouped ? 1.0f / 128.0f : 0.0f);  // codes 127 and -128
      check_matrix(w, a, 4, 5, note(info(f).name, "extreme", static_cast<int>(fill)));
    }
  }
}

}  // namespace outrider::test
