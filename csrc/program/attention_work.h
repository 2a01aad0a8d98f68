// How the threads of a pass share one attention call. A block is up to kMaxQueries (row, head) pairs of one sequence and KV head,
// in row order; a task is a block over all its spans or, where that leaves threads without work, over one of them. Either way the
// arithmetic is the same. Parts of spans wait in memory until the block's last task adds them up.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/attention_pack.h"
#include "program/batch.h"

namespace outrider {

struct AttentionBlock {
  const RowRange* range;
  int first, count;           // (row, head of the group) pairs of the range
  int64_t first_span, spans;  // that any of them sees
  size_t task;                // the first of its tasks, of one KV head
};

class AttentionWork {
 public:
  // Floats for parts of spans; a call that would need more is divided by blocks only.
  static constexpr size_t kMaxPartFloats = size_t{8} << 20;

  // group: query heads of a KV head.
  AttentionWork(const Pass& pass, bool outputs_only, const KvShape& shape, int group, int threads) : shape_(shape) {
    const size_t wanted = threads == 1 ? 1 : 2 * static_cast<size_t>(threads);
    for (int size = kMaxQueries;; size /= 2) {
      add_blocks(pass, outputs_only, group, size);
      size_t spans = 0, longest = 1;
      for (const AttentionBlock& b : blocks_) {
        spans += static_cast<size_t>(b.spans);
        longest = std::max(longest, static_cast<size_t>(b.spans));
      }
      part_floats_ = AttentionPart::floats(size, shape.head_dim);
      spans *= shape.kv_heads;
      by_span_ = spans < wanted * longest && longest > 1 && spans * part_floats_ <= kMaxPartFloats;
      if (size == 1 || spans >= wanted * (by_span_ ? 1 : longest)) break;
    }
    for (AttentionBlock& b : blocks_) {
      b.task = per_head_;
      per_head_ += by_span_ ? static_cast<size_t>(b.spans) : 1;
    }
  }

  size_t tasks() const { return per_head_ * shape_.kv_heads; }
  size_t blocks() const { return blocks_.size() * shape_.kv_heads; }
  bool by_span() const { return by_span_; }
  int kv_head(size_t task) const { return static_cast<int>(task / per_head_); }
  const AttentionBlock& block(size_t task) const {
    const auto after = std::upper_bound(blocks_.begin(), blocks_.end(), task % per_head_,
                                        [](size_t t, const AttentionBlock& b) { return t < b.task; });
    return *(after - 1);
  }
  // The number of a block among those of all KV heads.
  size_t number(const AttentionBlock& block, int kv_head) const { return kv_head * blocks_.size() + (&block - blocks_.data()); }
  // Where the part of a task begins.
  size_t part_at(const AttentionBlock& block, int kv_head, int64_t span) const {
    return (kv_head * per_head_ + block.task + static_cast<size_t>(span - block.first_span)) * part_floats_;
  }
  int64_t span(const AttentionBlock& block, size_t task) const {
    return block.first_span + static_cast<int64_t>(task % per_head_ - block.task);
  }

 private:
  void add_blocks(const Pass& pass, bool outputs_only, int group, int size) {
    blocks_.clear();
    for (const RowRange& range : pass.ranges(outputs_only)) {
      const int pairs = (range.end - range.begin) * group;
      for (int first = 0; first < pairs; first += size) {
        const int count = std::min(size, pairs - first);
        int64_t begin = INT64_MAX, last = 0;
        for (int i = first / group; i <= (first + count - 1) / group; ++i) {
          const int row = pass.row(outputs_only, range.begin + i);
          begin = std::min(begin, pass.first_position(row, shape_.window));
          last = std::max(last, pass.last_position(row));
        }
        const int64_t first_span = begin / kSpanPositions;
        blocks_.push_back({&range, first, count, first_span, last / kSpanPositions - first_span + 1, 0});
      }
    }
  }

  const KvShape& shape_;
  std::vector<AttentionBlock> blocks_;
  size_t per_head_ = 0, part_floats_ = 0;
  bool by_span_ = false;
};

}  // namespace outrider
