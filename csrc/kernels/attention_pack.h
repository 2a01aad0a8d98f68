// One task of attention: up to four query heads that read the same head of the same sequence's cache.
#pragma once
#include <cstdint>

#include "cache/kv_format.h"

namespace outrider {

inline constexpr int kMaxQueries = 4;

struct AttentionPack {
  KvHead cache;
  int head_dim;
  int64_t capacity;   // slots; a multiple of 16
  int64_t committed;  // positions before this one lie in their own slots
  int queries;
  const float* query[kMaxQueries];  // (head_dim), already scaled
  float* out[kMaxQueries];          // (head_dim)
  int64_t first[kMaxQueries];       // first position that the query sees
  int64_t position[kMaxQueries];    // its own, the last it sees
  // For a row of a tree: path[d] = which staged row (slot committed + path[d]) stands at position committed + d.
  // Null when the staged rows stand in order.
  const int32_t* path[kMaxQueries];
};

}  // namespace outrider
