// The rows of one pass: each is a token, or an embedding, of a sequence, and has a parent row.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#include "cache/kv_cache.h"

namespace outrider {

// Rows of one sequence are contiguous. A row's parent is an earlier row of the same sequence, or -1 for the last committed
// token. A prompt is a chain, plain decoding a single row, a draft a tree.
struct RowBatch {
  std::vector<int32_t> token, sequence, parent;  // (rows)
  std::vector<int32_t> outputs;                  // output rows, ascending: those whose hidden state and argmax are requested
  std::vector<KvCache*> caches;                  // by sequence number
  // By row: the index of an embedding that replaces the token, or -1. Empty if no row carries one.
  std::vector<int32_t> embedding = {};
  const float* embeddings = nullptr;  // (embedding_count, embedding_width)
  size_t embedding_count = 0, embedding_width = 0;
  // By row: the adapter whose low-rank additions it gets (see LowRank), or -1. Empty if no row has one.
  std::vector<int32_t> adapter = {};
};

// The rows of one sequence within a pass.
struct RowRange {
  KvCache* cache;
  int begin, end;
};

// A validated batch, with what kernels need per row. Methods with `outputs_only` count either all rows of the pass or its
// output rows only.
class Pass {
 public:
  // Validates the batch and stages its rows in their caches. Throws std::invalid_argument naming the row or token that does
  // not fit. Allocates memory only for a larger pass than any before.
  // cross_attention: see Program; such rows are not staged and need a committed position to attend to.
  // adapters: those that rows may name.
  void prepare(const RowBatch& batch, int max_rows, int64_t vocabulary, bool cross_attention, int adapters);

  int rows(bool outputs_only) const { return outputs_only ? static_cast<int>(outputs_.size()) : rows_; }
  // The batch's row number of the i-th row.
  int row(bool outputs_only, int i) const { return outputs_only ? outputs_[i] : i; }
  const std::vector<RowRange>& ranges(bool outputs_only) const { return outputs_only ? output_ranges_ : ranges_; }
  const std::vector<int32_t>& outputs() const { return outputs_; }

  int32_t token(int row) const { return token_[row]; }
  // Null if the row is a token.
  const float* embedding(int row) const {
    return embedding_.empty() || embedding_[row] < 0 ? nullptr
                                                     : embeddings_ + static_cast<size_t>(embedding_[row]) * embedding_width_;
  }
  // Whether any row has an adapter.
  bool adapts() const { return !adapter_.empty(); }
  int32_t adapter(int row) const { return adapter_[row]; }
  // Adapter -> its rows, counted as `rows` counts them. Only if adapts().
  const std::vector<std::vector<int>>& adapted(bool outputs_only) const { return outputs_only ? adapted_outputs_ : adapted_; }
  int64_t position(int row) const { return position_[row]; }
  // The first position that the row attends to in a layer with this window.
  int64_t first_position(int row, int window) const { return window ? std::max<int64_t>(0, last_position(row) - window + 1) : 0; }
  // The last position that the row attends to: its own, or, in cross-attention, the last committed one.
  int64_t last_position(int row) const { return cross_attention_ ? cache_[row]->length() - 1 : position_[row]; }
  KvCache& cache(int row) const { return *cache_[row]; }
  // The row's slot: committed length + index of the row within its sequence.
  int64_t staged_at(int row) const { return staged_at_[row]; }
  // The staged row at each depth on the path from the last committed token to this row; null if that is 0, 1, 2, ...
  const int32_t* path(int row) const { return path_at_[row] < 0 ? nullptr : path_.data() + path_at_[row]; }

 private:
  int rows_ = 0;
  bool cross_attention_ = false;
  std::vector<int32_t> token_, embedding_, adapter_, outputs_, path_;
  const float* embeddings_ = nullptr;
  size_t embedding_width_ = 0;
  std::vector<int64_t> position_, staged_at_, path_at_;
  std::vector<KvCache*> cache_;
  std::vector<std::vector<int>> adapted_, adapted_outputs_;  // rows by adapter
  std::vector<RowRange> ranges_, output_ranges_;
};

}  // namespace outrider
