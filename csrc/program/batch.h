// What one pass computes: rows of tokens, each of a sequence, each after its parent.
#pragma once
#include <cstdint>
#include <vector>

#include "cache/kv_cache.h"

namespace outrider {

// Rows of one sequence lie together; a row's parent is an earlier row of the same sequence, or -1 for the last
// committed token. A prompt is a chain, plain decoding a single row, a draft a tree.
struct RowBatch {
  std::vector<int32_t> token, sequence, parent;  // (rows)
  std::vector<int32_t> outputs;                  // ascending rows whose hidden state and choice are wanted
  std::vector<KvCache*> caches;                  // by sequence number
  // Of rows that carry an embedding in place of a token: by row its index, -1 for the others; empty where none does.
  std::vector<int32_t> embedding = {};
  const float* embeddings = nullptr;  // (embedding_count, embedding_width)
  size_t embedding_count = 0, embedding_width = 0;
};

// The rows of one sequence within a pass.
struct RowRange {
  KvCache* cache;
  int begin, end;
};

// A checked batch with everything derived that kernels ask per row.
class Pass {
 public:
  // Throws std::invalid_argument naming the row or token that does not fit. Allocates only up to the largest pass seen.
  // reader, reader_offset: see Program; such rows stage nothing and need a committed position to look at.
  void prepare(const RowBatch& batch, int max_rows, int64_t vocabulary, bool reader, int reader_offset);

  int rows(bool narrow) const { return narrow ? static_cast<int>(outputs_.size()) : rows_; }
  // Row of the batch behind the i-th active row.
  int row(bool narrow, int i) const { return narrow ? outputs_[i] : i; }
  const std::vector<RowRange>& ranges(bool narrow) const { return narrow ? narrow_ranges_ : ranges_; }
  const std::vector<int32_t>& outputs() const { return outputs_; }

  int32_t token(int row) const { return token_[row]; }
  // Null where the row is a token.
  const float* embedding(int row) const {
    return embedding_.empty() || embedding_[row] < 0 ? nullptr
                                                     : embeddings_ + static_cast<size_t>(embedding_[row]) * embedding_width_;
  }
  int64_t position(int row) const { return position_[row]; }
  // The last position whose key the row sees: its own, or the last committed one.
  int64_t last_seen(int row) const { return reader_ ? cache_[row]->length() - 1 : position_[row]; }
  KvCache& cache(int row) const { return *cache_[row]; }
  // Slot number before the modulo: committed length + index of the row within its sequence.
  int64_t staged_at(int row) const { return staged_at_[row]; }
  // Null when the row's ancestors stand in order, else the staged row at each depth.
  const int32_t* path(int row) const { return path_at_[row] < 0 ? nullptr : path_.data() + path_at_[row]; }

 private:
  int rows_ = 0;
  bool reader_ = false;
  std::vector<int32_t> token_, embedding_, outputs_, path_;
  const float* embeddings_ = nullptr;
  size_t embedding_width_ = 0;
  std::vector<int64_t> position_, staged_at_, path_at_;
  std::vector<KvCache*> cache_;
  std::vector<RowRange> ranges_, narrow_ranges_;
};

}  // namespace outrider
