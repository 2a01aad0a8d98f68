// Weighted sums of cached values over one tile, added to the part of a span. Each lane is a dimension. Float values are added in
// position order; products of codes exactly, in any order.
#pragma once
#include "kernels/attention_scores.h"

namespace outrider::OUTRIDER_ISA {

// A tile: the positions of one page.
struct Tile {
  int64_t begin;
  const uint8_t* page;
  ptrdiff_t to_next;
  int64_t in_order;  // the first position that lies in another slot than its own for any query
  bool visible[kMaxQueries];
  float largest[kMaxQueries], sums[kMaxQueries][16];
  float keep[kMaxQueries];  // factor of the part so far
  float add[kMaxQueries];   // factor of this tile's sums
};

// part.values[q][d ...] = part * keep + sum * add.
template <int kVectors>
inline void add_to_part(const Tile& t, const AttentionPart& part, int head_dim, int q, int d, const F* sum) {
  float* values = part.values + static_cast<size_t>(q) * head_dim + d;
  const F keep = set1(t.keep[q]), add = set1(t.add[q]);
  for (int v = 0; v < kVectors; ++v) store(values + 16 * v, fma(load(values + 16 * v), keep, mul(sum[v], add)));
}

// Float values. weights: (kMaxQueries, kPagePositions) by position. Positions that only some queries see, at either end, are
// processed one query at a time.
template <class T, int kQueries, int kVectors>
void mix_floats(const AttentionPack& a, const Tile& t, const float (*weights)[kPagePositions], int first, int dimension,
                const AttentionPart& part) {
  const KvLayout& layout = a.cache.layout;
  const auto values = [&](const uint8_t* page, int slot) {
    return reinterpret_cast<const T*>(page + layout.values_at()) + layout.value(slot, dimension);
  };
  F sum[kQueries][kVectors];
  int begin[kQueries] = {}, in_order[kQueries] = {}, from = 0, to = static_cast<int>(kPagePositions);  // offsets within the tile
  bool any = false;
  for (int q = 0; q < kQueries; ++q) {
    for (int v = 0; v < kVectors; ++v) sum[q][v] = zero();
    if (!t.visible[first + q]) continue;
    any = true;
    const int64_t last = a.last[first + q] + 1 < t.in_order ? a.last[first + q] + 1 : t.in_order;
    begin[q] = a.first[first + q] > t.begin ? static_cast<int>(a.first[first + q] - t.begin) : 0;
    in_order[q] = last < t.begin ? 0 : last > t.begin + kPagePositions ? kPagePositions : static_cast<int>(last - t.begin);
    from = begin[q] > from ? begin[q] : from;
    to = in_order[q] < to ? in_order[q] : to;
  }
  if (!any) return;
  if (from > to) from = to;  // no position is shared by all queries
  const auto add_alone = [&](int q, const T* v, int position) {
    const F w = set1(weights[first + q][position]);
    for (int i = 0; i < kVectors; ++i) sum[q][i] = fma(w, load_cached(v + 16 * i), sum[q][i]);
  };
  for (int q = 0; q < kQueries; ++q)
    if (t.visible[first + q])
      for (int p = begin[q]; p < from; ++p) add_alone(q, values(t.page, p), p);
  const ptrdiff_t to_next = first == 0 ? t.to_next : 0;
  for (int p = from; p < to; ++p) {
    const T* v = values(t.page, p);
    F x[kVectors];
    if (to_next) prefetch(reinterpret_cast<const uint8_t*>(v) + to_next);
    for (int i = 0; i < kVectors; ++i) x[i] = load_cached(v + 16 * i);
    for (int q = 0; q < kQueries; ++q) {
      const F w = set1(weights[first + q][p]);
      for (int i = 0; i < kVectors; ++i) sum[q][i] = fma(w, x[i], sum[q][i]);
    }
  }
  for (int q = 0; q < kQueries; ++q) {
    if (!t.visible[first + q]) continue;
    for (int p = begin[q] > to ? begin[q] : to; p < in_order[q]; ++p) add_alone(q, values(t.page, p), p);
    for (int64_t p = std::max({t.begin, t.in_order, a.first[first + q]}); p < t.begin + kPagePositions && p <= a.last[first + q];
         ++p) {
      const int64_t slot = a.slot(first + q, p);
      add_alone(q, values(a.cache.page(slot), static_cast<int>(slot % kPagePositions)), static_cast<int>(p - t.begin));
    }
    add_to_part<kVectors>(t, part, layout.head_dim, first + q, dimension, sum[q]);
  }
}

// Codes of values.
// Sums are exact within a group of positions; groups are added in position order.
template <int kQueries, int kVectors>
void mix_codes(const AttentionPack& a, const Tile& t, const AttentionScratch& s, int first, int dimension,
               const AttentionPart& part) {
  const KvLayout& layout = a.cache.layout;
  constexpr size_t kVectorBytes = size_t{kPagePositions} * 16;
  I sum[kQueries][kVectors];
  F total[kQueries][kVectors];
  for (int q = 0; q < kQueries; ++q)
    for (int v = 0; v < kVectors; ++v) sum[q][v] = izero(), total[q][v] = zero();
  for (size_t i = 0; i < s.weighted.size(); ++i) {
    const WeightedSlots& w = s.weighted[i];
    const int8_t* codes = reinterpret_cast<const int8_t*>(w.page + layout.values_at()) + layout.value(4 * w.first, dimension);
    const int8_t* weights[kQueries];
    for (int q = 0; q < kQueries; ++q) weights[q] = w.weights + (first + q) * w.stride;
    const ptrdiff_t to_next = first == 0 && w.page == t.page ? t.to_next : 0;
    for (int j = 0; j < w.count; ++j) {
      ValueCodes x[kVectors];
      for (int v = 0; v < kVectors; ++v) {
        const int8_t* at = codes + v * kVectorBytes + j * 64;
        if (to_next) prefetch(at + to_next);
        x[v] = value_codes(at);
      }
      for (int q = 0; q < kQueries; ++q)
        for (int v = 0; v < kVectors; ++v) sum[q][v] = add_weighted(sum[q][v], x[v], weights[q] + 4 * j);
    }
    if (i + 1 < s.weighted.size() && s.weighted[i + 1].group == w.group) continue;
    for (int q = 0; q < kQueries; ++q)
      for (int v = 0; v < kVectors; ++v) {
        total[q][v] = fma(to_float(sum[q][v]), set1(s.weight_scales[first + q][w.group]), total[q][v]);
        sum[q][v] = izero();
      }
  }
  for (int q = 0; q < kQueries; ++q)
    if (t.visible[first + q]) add_to_part<kVectors>(t, part, layout.head_dim, first + q, dimension, total[q]);
}

}  // namespace outrider::OUTRIDER_ISA
