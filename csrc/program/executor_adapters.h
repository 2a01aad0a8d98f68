// What adapters add to the products of matrices, in the rows that have one.
#pragma once
#include "program/executor.h"

namespace outrider {

// Calls use(row, values) with the 16 products of a tile for each of `rows`, whose inputs input(row) are float32.
template <class Input, class Use>
void Executor::tile_of_rows(const Matrix& m, size_t tile, const std::vector<int>& rows, const Input& input, const Use& use) {
  std::vector<const float*>& inputs = p_.adapted_rows_[thread_];
  float* out = p_.tile_scratch_[thread_].data() + static_cast<size_t>(2 * p_.max_rows_) * kTile;
  for (size_t i = 0; i < rows.size(); ++i) inputs[i] = input(rows[i]);
  k_.linear_tile(m, tile, m.tile(tile + 1), nullptr, nullptr, inputs.data(), static_cast<int>(rows.size()), out, kTile);
  for (size_t i = 0; i < rows.size(); ++i) use(rows[i], out + i * kTile);
}

inline float* Executor::projected(const Additions& to, int row) {
  return p_.projected_.data() + static_cast<size_t>(row) * p_.projected_width_ + to.offset;
}

// Reads each matrix a once for all rows of its adapter; a task is one tile of one range of columns.
inline void Executor::run(const Project& c) {
  Buffer& src = buffer(c.src);
  const auto& rows_of = p_.pass_.adapted(outputs_only_);
  size_t total = 0;
  const auto tasks = [&](const LowRank& part) {
    return rows_of[part.adapter].empty() ? 0 : part.a->count() * part.a->shape().tiles;
  };
  for (const Additions& to : c.additions)
    for (const LowRank& part : to.parts) total += tasks(part);
  parallel_tasks(total, [&](size_t task) {
    for (const Additions& to : c.additions)
      for (const LowRank& part : to.parts) {
        if (task >= tasks(part)) {
          task -= tasks(part);
          continue;
        }
        const size_t tiles = part.a->shape().tiles, range = task / tiles, tile = task % tiles;
        const size_t column = range * part.a->shape().columns, at = range * part.padded_rank() + tile * kTile;
        return tile_of_rows(
            part.a->matrix(range), tile, rows_of[part.adapter], [&](int row) { return src.row(row) + column; },
            [&](int row, const float* values) { std::memcpy(projected(to, row) + at, values, kTile * sizeof(float)); });
      }
  });
}

// Adds the ranges' sums, and scales them.
inline void Executor::run_part(const SumProjected& c, Part at) {
  for (const Additions& to : c.additions)
    for (const LowRank& part : to.parts) {
      if (part.adapter != p_.pass_.adapter(p_.pass_.row(outputs_only_, at.row))) continue;
      float* sum = projected(to, at.row);
      const int rank = part.padded_rank();
      for (size_t range = 1; range < part.a->count(); ++range) k_.add_row(sum + range * rank, rank, sum);
      k_.scale_row(part.scale, rank, sum);
    }
}

// Adds what adapters add to one tile, whose row r is at out + r * stride.
inline void Executor::add_low_rank(const std::vector<Additions>& additions, size_t weight, size_t tile, float* out, size_t stride) {
  if (additions.empty() || !p_.pass_.adapts()) return;
  const Additions& to = additions[weight];
  for (const LowRank& part : to.parts) {
    const std::vector<int>& rows = p_.pass_.adapted(outputs_only_)[part.adapter];
    if (rows.empty()) continue;
    tile_of_rows(
        part.b->matrix(), tile, rows, [&](int row) { return projected(to, row); },
        [&](int row, const float* values) { k_.add_row(values, kTile, out + row * stride); });
  }
}

}  // namespace outrider
