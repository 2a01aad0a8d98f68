// One attention task: up to 32 queries (row and head) against the same KV head of the same sequence, over one span of positions.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "cache/kv_format.h"

namespace outrider {

inline constexpr int kMaxQueries = 32;
inline constexpr int64_t kSpanPositions = 8 * kPagePositions;

struct AttentionPack {
  KvHead cache;
  int64_t committed;  // number of committed positions, which lie in their own slots
  int queries;
  const float* query[kMaxQueries];  // (head_dim), already scaled
  float* out[kMaxQueries];          // (head_dim)
  int64_t first[kMaxQueries];       // first position that the query attends to
  int64_t last[kMaxQueries];        // last position that the query attends to; may lie behind its own
  // For a row of a tree: path[d] is the staged row, in slot committed + path[d], that has position committed + d, up to `last`.
  // Null if that is 0, 1, 2, ...
  const int32_t* path[kMaxQueries];

  // From the head's part of one page to that of the next, which attention prefetches meanwhile; 0 if no query sees the next.
  ptrdiff_t to_next(int64_t tile, int64_t end) const {
    const int64_t next = tile + kPagePositions;
    return next < end ? cache.page(next) - cache.page(tile) : 0;
  }
  bool sees(int q, int64_t begin, int64_t end) const { return first[q] < end && last[q] >= begin; }
  bool sees_span(int q, int64_t span) const { return sees(q, span * kSpanPositions, (span + 1) * kSpanPositions); }
  // The slot of position p, counted from position 0.
  int64_t slot(int q, int64_t p) const { return path[q] && p >= committed ? committed + path[q][p - committed] : p; }
};

// The result of a pack over one span or several: of each query the largest score, the softmax denominator by lane, and the sum of
// weighted values. Undefined for queries that see nothing there.
struct AttentionPart {
  float* largest;  // (kMaxQueries)
  float* sums;     // (queries, 16)
  float* values;   // (queries, head_dim)

  static size_t floats(int queries, int head_dim) { return kMaxQueries + static_cast<size_t>(queries) * (16 + head_dim); }
  static AttentionPart in(float* memory, int queries) {
    return {memory, memory + kMaxQueries, memory + kMaxQueries + static_cast<size_t>(queries) * 16};
  }
};

// Softmax weights of this many positions of a tile have one scale, when they are quantized.
inline constexpr int kWeightGroup = 32;
inline constexpr int kWeightGroups = static_cast<int>(kPagePositions) / kWeightGroup;

// Quads of 4 slots of a page, with the weights of their codes: weights[query * stride + slot - 4 * first]. All of them belong to
// positions of one group.
struct WeightedSlots {
  const uint8_t* page;
  int first, count;
  const int8_t* weights;
  size_t stride;
  int group;
};

// One thread's memory for attend_span(). A pass stages at most max_rows rows.
struct AttentionScratch {
  AttentionScratch(int head_dim, int max_rows)
      : staged((static_cast<size_t>(max_rows) + 46) / 16 * 16),
        codes(static_cast<size_t>(kMaxQueries) * head_dim),
        query_scales(static_cast<size_t>(kMaxQueries) * KvLayout{KvFormat::kInt8, head_dim}.key_groups()),
        starts(query_scales.size()),
        staged_scores(kMaxQueries * staged),
        staged_weights(kWeightGroups * kMaxQueries * staged),
        part(AttentionPart::floats(kMaxQueries, head_dim)),
        total(part.size()) {}

  const size_t staged;  // slots from the block of 16 with the first staged row
  float scores[kMaxQueries][kPagePositions];
  int8_t weights[kMaxQueries][kPagePositions];
  float weight_scales[kMaxQueries][kWeightGroups];
  std::vector<int8_t> codes;           // (kMaxQueries, head_dim) of the queries
  std::vector<float> query_scales;     // (kMaxQueries, key groups)
  std::vector<int32_t> starts;         // (kMaxQueries, key groups): of sums over codes, see kKeyOffset
  std::vector<float> staged_scores;    // (kMaxQueries, staged)
  std::vector<int8_t> staged_weights;  // (kWeightGroups, kMaxQueries, staged)
  std::vector<WeightedSlots> weighted;
  std::vector<float> part, total;  // room for an AttentionPart each
};

}  // namespace outrider
