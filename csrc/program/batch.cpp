#include "program/batch.h"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace outrider {
namespace {

[[noreturn]] void refuse(const std::string& what) { throw std::invalid_argument("invalid batch: " + what); }

}  // namespace

void Pass::prepare(const RowBatch& b, int max_rows, int64_t vocabulary, bool cross_attention, int adapters) {
  const size_t rows = b.token.size();
  if (rows == 0 || rows > static_cast<size_t>(max_rows))
    refuse("a pass has 1 to " + std::to_string(max_rows) + " rows, not " + std::to_string(rows));
  if (b.sequence.size() != rows || b.parent.size() != rows) refuse("token, sequence and parent differ in length");
  rows_ = static_cast<int>(rows);
  cross_attention_ = cross_attention;
  if (!b.embedding.empty() && b.embedding.size() != rows) refuse("token and embedding differ in length");
  for (size_t r = 0; r < b.embedding.size(); ++r)
    if (b.embedding[r] < -1 || b.embedding[r] >= static_cast<int64_t>(b.embedding_count))
      refuse("row " + std::to_string(r) + " names embedding " + std::to_string(b.embedding[r]) + " of " +
             std::to_string(b.embedding_count));
  if (!b.adapter.empty() && b.adapter.size() != rows) refuse("token and adapter differ in length");
  for (size_t r = 0; r < b.adapter.size(); ++r)
    if (b.adapter[r] < -1 || b.adapter[r] >= adapters)
      refuse("row " + std::to_string(r) + " names adapter " + std::to_string(b.adapter[r]) + " of " + std::to_string(adapters));
  token_ = b.token;
  adapter_ = b.adapter;
  embedding_ = b.embedding;
  embeddings_ = b.embeddings;
  embedding_width_ = b.embedding_width;
  outputs_ = b.outputs;
  position_.resize(rows);
  staged_at_.resize(rows);
  path_at_.resize(rows);
  cache_.resize(rows);
  path_.clear();
  ranges_.clear();
  output_ranges_.clear();

  for (int r = 0; r < rows_; ++r) {
    if (b.token[r] < 0 || b.token[r] >= vocabulary)
      refuse("token " + std::to_string(b.token[r]) + " in row " + std::to_string(r) + " is outside the vocabulary of " +
             std::to_string(vocabulary));
    const int s = b.sequence[r];
    if (s < 0 || static_cast<size_t>(s) >= b.caches.size()) refuse("the sequence of row " + std::to_string(r) + " has no cache");
    if (ranges_.empty() || ranges_.back().cache != b.caches[s]) {
      for (const RowRange& earlier : ranges_)
        if (earlier.cache == b.caches[s]) refuse("the rows of sequence " + std::to_string(s) + " are not contiguous");
      ranges_.push_back({b.caches[s], r, r});
    }
    RowRange& range = ranges_.back();
    range.end = r + 1;
    const int parent = b.parent[r];
    if (parent != -1 && (parent < range.begin || parent >= r))
      refuse("the parent of row " + std::to_string(r) + " must be an earlier row of its sequence, or -1");
    const int64_t length = range.cache->length();
    cache_[r] = range.cache;
    staged_at_[r] = length + (r - range.begin);
    if (cross_attention) {
      if (length == 0) refuse("cross-attention needs a sequence with at least one committed position");
      position_[r] = length;
      path_at_[r] = -1;
      continue;
    }
    position_[r] = parent == -1 ? length : position_[parent] + 1;
    // In order: the row directly follows its parent, which is in order itself, so that its path is 0, 1, 2, ...
    const bool in_order = parent == -1 ? r == range.begin : parent == r - 1 && path_at_[parent] < 0;
    path_at_[r] = -1;
    if (!in_order) {
      const size_t depth = static_cast<size_t>(position_[r] - length);
      path_at_[r] = static_cast<int64_t>(path_.size());
      path_.resize(path_.size() + depth + 1);
      int32_t* path = path_.data() + path_at_[r];
      for (int at = r, d = static_cast<int>(depth); d >= 0; at = b.parent[at], --d) path[d] = at - range.begin;
    }
  }
  for (size_t i = 0; i < outputs_.size(); ++i)
    if (outputs_[i] < 0 || outputs_[i] >= rows_ || (i > 0 && outputs_[i] <= outputs_[i - 1]))
      refuse("outputs must list rows in ascending order");
  if (!cross_attention) {  // check all before staging any: a refused pass must not leave staged rows that were never written
    for (const RowRange& range : ranges_) range.cache->make_room(range.end - range.begin);
    for (const RowRange& range : ranges_) range.cache->stage(range.end - range.begin);
  }
  size_t i = 0;
  for (const RowRange& range : ranges_) {
    const int begin = static_cast<int>(i);
    while (i < outputs_.size() && outputs_[i] < range.end) ++i;
    if (static_cast<int>(i) > begin) output_ranges_.push_back({range.cache, begin, static_cast<int>(i)});
  }
  if (!adapts()) return;
  for (const bool outputs_only : {false, true}) {
    auto& by_adapter = outputs_only ? adapted_outputs_ : adapted_;
    by_adapter.assign(adapters, {});
    for (int j = 0; j < this->rows(outputs_only); ++j)
      if (const int32_t adapter = adapter_[row(outputs_only, j)]; adapter >= 0) by_adapter[adapter].push_back(j);
  }
}

}  // namespace outrider
