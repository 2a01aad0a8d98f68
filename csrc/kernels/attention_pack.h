// One attention task: up to four queries (row and head) against the same KV head of the same sequence.
#pragma once
#include <cstdint>

#include "cache/kv_format.h"

namespace outrider {

inline constexpr int kMaxQueries = 4;

struct AttentionPack {
  KvHead cache;
  int head_dim;
  int64_t committed;  // number of committed positions; staged row i has the slot committed + i
  int queries;
  const float* query[kMaxQueries];  // (head_dim), already scaled
  float* out[kMaxQueries];          // (head_dim)
  int64_t first[kMaxQueries];       // first position that the query attends to
  int64_t position[kMaxQueries];    // last position that the query attends to
  // For a row of a tree: path[d] is the staged row, in slot committed + path[d], that has position committed + d.
  // Null if that is 0, 1, 2, ...
  const int32_t* path[kMaxQueries];
};

}  // namespace outrider
