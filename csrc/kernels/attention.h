// Attention of the queries of a pack over one span of positions of one head's cache.
//
// A span is walked in tiles, the positions of one page. A tile's scores and weights stay in the first-level cache; each block of
// its keys and values is loaded once for all queries. Within a span, tiles are added in position order, each rescaled to the
// largest score so far (Milakov and Gimelshein 2018); spans are added in position order, too, so threads may share a row's spans.
//
// 8-bit codes: the scale of a value is folded into its softmax weight, which is then quantized with one scale for a group of
// positions.
//
// Exactness: a row's bits depend on the positions that it sees and on nothing else: neither on the slots of staged rows nor on the
// other queries of the pack, nor on what unseen slots hold, NaN included.
// Bounded by reading the cache (few rows) or by products (many rows); a tile prefetches the next one.
#pragma once
#include <algorithm>
#include <cstring>

#include "kernels/attention_values.h"

namespace outrider::OUTRIDER_ISA {

// Replaces scores by weights e^(score - largest) for offsets begin .. end - 1 of whole blocks of 16, and by 0 in the rest of these
// blocks; adds the weights to `sums` by lane. Returns the largest score.
inline float exponentials(float* scores, int begin, int end, F& sums) {
  const int from = begin / 16 * 16, to = (end + 15) / 16 * 16;
  const float masked = -__builtin_inff();
  for (int i = from; i < begin; ++i) scores[i] = masked;
  for (int i = end; i < to; ++i) scores[i] = masked;
  F largest = set1(masked);
  for (int i = from; i < to; i += 16) largest = max(load(scores + i), largest);
  const float top = reduce_max(largest);
  const F m = set1(top);
  for (int i = from; i < to; i += 16) {
    const F weight = exp(sub(load(scores + i), m));
    store(scores + i, weight);
    sums = add(sums, weight);
  }
  return top;
}

// Replaces scores begin .. end - 1 by e^(score - largest), and the rest of their blocks of 16 by 0; returns 1 / their sum.
inline float softmax(float* scores, int begin, int end) {
  F sums = zero();
  exponentials(scores, begin, end, sums);
  return 1.0f / reduce_add(sums);
}

// Quantizes weights times the scales of their values, for whole blocks of 16 from offset begin to end - 1; the rest of the tile
// gets codes 0, and so do positions not seen, whose weight is 0, whatever their scale.
inline void quantize_weights(const float* weights, const float* scales, int begin, int end, int8_t* codes, float* group_scales) {
  static_assert(kWeightGroup == 32);
  const int from = begin / 16 * 16, to = (end + 15) / 16 * 16;
  std::memset(codes, 0, kPagePositions);
  for (int g = 0; g < kWeightGroups; ++g) {
    F scaled[2], largest = zero();
    for (int i = 0; i < 2; ++i) {
      const int at = g * kWeightGroup + 16 * i;
      scaled[i] = at >= from && at < to ? mul(load(weights + at), load(scales + at)) : zero();
      largest = max(scaled[i], largest);
    }
    const CodeScale by = scale_by(reduce_max(largest));
    group_scales[g] = by.scale;
    for (int i = 0; i < 2; ++i) store_int8(codes + g * kWeightGroup + 16 * i, codes_of(scaled[i], by));
  }
}

// The staged rows of a pack with paths, in slots from a multiple of 16 on.
struct Staged {
  int64_t begin = 0, end = 0;  // none if equal
  size_t index(int64_t slot) const { return static_cast<size_t>(slot - begin); }
};

inline Staged staged_rows(const AttentionPack& a, int64_t span_end) {
  int64_t last = -1;
  for (int q = 0; q < a.queries; ++q)
    if (a.path[q] && a.last[q] >= a.committed) last = std::max(last, a.slot(q, a.last[q]));
  if (last < 0 || span_end <= a.committed) return {};
  for (int q = 0; q < a.queries; ++q) last = std::max(last, a.slot(q, a.last[q]));
  return {a.committed / 16 * 16, (last + 16) / 16 * 16};
}

// Calls work(page, first block of 16, end block, index of the first block's slots) for each page of staged rows.
template <class Work> inline void each_staged_page(const AttentionPack& a, const Staged& staged, const Work& work) {
  for (int64_t slot = staged.begin; slot < staged.end;) {
    const int64_t page = slot / kPagePositions * kPagePositions, stop = std::min(staged.end, page + kPagePositions);
    work(a.cache.page(slot), static_cast<int>(slot - page) / 16, static_cast<int>(stop - page) / 16, staged.index(slot));
    slot = stop;
  }
}

template <class T> struct Span {
  static constexpr bool kCodes = sizeof(T) == 1;
  const AttentionPack& a;
  AttentionScratch& s;
  const AttentionPart part;
  const Staged staged;

  void attend(int64_t begin, int64_t end) {
    int64_t first = end, last = begin;
    for (int q = 0; q < a.queries; ++q) {
      first = std::min(first, a.first[q]);
      last = std::max(last, a.last[q]);
      part.largest[q] = -__builtin_inff();
    }
    std::fill_n(part.sums, a.queries * (16 + a.cache.layout.head_dim), 0.0f);
    if constexpr (kCodes) quantize_queries(a, s);
    score_staged();
    begin = std::max(begin, first / kPagePositions * kPagePositions);
    end = std::min(end, last + 1);
    for (int64_t tile = begin; tile < end; tile += kPagePositions)
      add_tile(tile, std::max(first, tile), std::min(end, tile + kPagePositions), last + 1);
  }

 private:
  auto scores() const {
    if constexpr (kCodes) return CodeScores{a, s};
    else return FloatScores<T>{a};
  }

  const float* value_scales(const uint8_t* page) const {
    return reinterpret_cast<const float*>(page + a.cache.layout.value_scales_at());
  }

  // Scores of the staged rows into s.staged_scores[query][index of the slot].
  void score_staged() {
    each_staged_page(a, staged, [&](const uint8_t* page, int begin, int end, size_t at) {
      score_blocks(scores(), a.queries, page, begin, end, 0, s.staged_scores.data() + at, s.staged);
    });
  }

  // Adds positions first .. end - 1 of a tile to the part; no query sees others of it. They see positions before `seen`.
  void add_tile(int64_t tile, int64_t first, int64_t end, int64_t seen) {
    Tile t;
    t.begin = tile;
    t.page = a.cache.page(tile);
    t.to_next = a.to_next(tile, seen);
    t.in_order = staged.begin < staged.end ? a.committed : INT64_MAX;
    const int from = static_cast<int>(first - tile) / 16;
    const int to = static_cast<int>(std::min(end, t.in_order) - tile + 15) / 16;  // of the blocks that lie in order
    if (from < to) score_blocks(scores(), a.queries, t.page, from, to, t.to_next, s.scores[0] + 16 * from, kPagePositions);
    for (int q = 0; q < a.queries; ++q)
      if ((t.visible[q] = a.sees(q, tile, end))) softmax(t, q);
    rescale(t);
    if constexpr (kCodes) list_weighted(t, from, to, end);
    mix(t);
  }

  // Adds the tile's values to the part. A few vectors of values at a time, which stay in the first-level cache while all queries
  // meet them.
  void mix(const Tile& t) {
    constexpr int kChunk = 64;
    const int head_dim = a.cache.layout.head_dim;
    for (int chunk = 0; chunk < head_dim; chunk += kChunk)
      each_query_block<kCodes ? kCodeQueries : kFloatQueries>(a.queries, [&]<int kQueries>(int q) {
        constexpr int kVectors = kCodes ? kCodeVectors<kQueries> : kFloatVectors<kQueries>;
        const int end = std::min(chunk + kChunk, head_dim);
        int d = chunk;
        for (; d + 16 * kVectors <= end; d += 16 * kVectors) mix_block<kQueries, kVectors>(t, q, d);
        for (; d < end; d += 16) mix_block<kQueries, 1>(t, q, d);
      });
  }

  template <int kQueries, int kVectors> void mix_block(const Tile& t, int q, int d) {
    if constexpr (kCodes) mix_codes<kQueries, kVectors>(a, t, s, q, d, part);
    else mix_floats<T, kQueries, kVectors>(a, t, s.scores, q, d, part);
  }

  // The softmax of one query over the tile. Codes of weights lie where the codes of their values do.
  void softmax(Tile& t, int q) {
    const int begin = static_cast<int>(std::max(a.first[q], t.begin) - t.begin);
    const int end = static_cast<int>(std::min(a.last[q] + 1, t.begin + kPagePositions) - t.begin);
    const int in_order = static_cast<int>(std::clamp<int64_t>(t.in_order - t.begin, begin, end));
    float* scores = s.scores[q];
    for (int p = in_order; p < end; ++p) scores[p] = s.staged_scores[q * s.staged + staged.index(a.slot(q, t.begin + p))];
    F sums = zero();
    t.largest[q] = exponentials(scores, begin, end, sums);
    store(t.sums[q], sums);
    if constexpr (!kCodes) return;
    const float* scales = value_scales(t.page);
    float moved[kPagePositions];
    if (in_order < end) {
      std::memcpy(moved, scales, sizeof moved);
      for (int p = in_order; p < end; ++p) {
        const int64_t slot = a.slot(q, t.begin + p);
        moved[p] = value_scales(a.cache.page(slot))[slot % kPagePositions];
      }
      scales = moved;
    }
    quantize_weights(scores, scales, begin, end, s.weights[q], s.weight_scales[q]);
    if (t.in_order >= t.begin + kPagePositions) return;
    for (int g = 0; g < kWeightGroups; ++g) std::memset(staged_weights(g, q), 0, s.staged);
    for (int p = in_order; p < end; ++p) {
      staged_weights(p / kWeightGroup, q)[staged.index(a.slot(q, t.begin + p))] = s.weights[q][p];
      s.weights[q][p] = 0;
    }
  }

  int8_t* staged_weights(int group, int q) const { return s.staged_weights.data() + (group * kMaxQueries + q) * s.staged; }

  // Where weights lie: of blocks from .. to - 1 in their own slots, and of staged rows at positions before `end`.
  void list_weighted(const Tile& t, int from, int to, int64_t end) {
    s.weighted.clear();
    for (int g = 0; g < kWeightGroups; ++g) {
      constexpr int kBlocks = kWeightGroup / 16;
      const int first = std::max(from, g * kBlocks), stop = std::min(to, (g + 1) * kBlocks);
      if (first < stop) s.weighted.push_back({t.page, 4 * first, 4 * (stop - first), s.weights[0] + 16 * first, kPagePositions, g});
      const int64_t position = t.begin + g * kWeightGroup;
      if (position >= end || position + kWeightGroup <= t.in_order) continue;
      each_staged_page(a, staged, [&](const uint8_t* page, int first, int stop, size_t at) {
        s.weighted.push_back({page, 4 * first, 4 * (stop - first), staged_weights(g, 0) + at, s.staged, g});
      });
    }
  }

  // The factors that bring the part and the tile to the larger of their largest scores.
  void rescale(Tile& t) {
    for (int q = 0; q < a.queries; q += 16) {
      const F before = load(part.largest + q), here = load(t.largest + q), both = max(here, before);
      store(t.keep + q, exp(sub(before, both)));
      store(t.add + q, exp(sub(here, both)));
      for (int i = q; i < a.queries && i < q + 16; ++i) {
        if (!t.visible[i]) continue;
        part.largest[i] = std::max(part.largest[i], t.largest[i]);
        float* sums = part.sums + i * 16;
        store(sums, fma(load(sums), set1(t.keep[i]), mul(load(t.sums[i]), set1(t.add[i]))));
      }
    }
  }
};

// Fills `part` with the result over one span.
inline void attend_span(const AttentionPack& a, int64_t span, AttentionScratch& scratch, const AttentionPart& part) {
  const int64_t begin = span * kSpanPositions, end = begin + kSpanPositions;
  const Staged staged = staged_rows(a, end);
  switch (a.cache.layout.format) {
    case KvFormat::kFloat32: return Span<float>{a, scratch, part, staged}.attend(begin, end);
    case KvFormat::kFloat16: return Span<uint16_t>{a, scratch, part, staged}.attend(begin, end);
    case KvFormat::kInt8: return Span<int8_t>{a, scratch, part, staged}.attend(begin, end);
  }
}

// Adds a span's part to the total of the spans before it.
inline void add_span(const AttentionPack& a, int64_t span, const AttentionPart& part, const AttentionPart& total) {
  const int head_dim = a.cache.layout.head_dim;
  const auto add_scaled = [](float* to, const float* from, int n, F keep, F scale) {
    for (int i = 0; i < n; i += 16) store(to + i, fma(load(to + i), keep, mul(load(from + i), scale)));
  };
  for (int q = 0; q < a.queries; ++q) {
    if (!a.sees_span(q, span)) continue;
    const size_t sums = static_cast<size_t>(q) * 16, values = static_cast<size_t>(q) * head_dim;
    if (a.first[q] / kSpanPositions == span) {
      total.largest[q] = part.largest[q];
      std::memcpy(total.sums + sums, part.sums + sums, 16 * sizeof(float));
      std::memcpy(total.values + values, part.values + values, head_dim * sizeof(float));
      continue;
    }
    const F before = set1(total.largest[q]), here = set1(part.largest[q]), both = max(here, before);
    const F keep = exp(sub(before, both)), scale = exp(sub(here, both));
    total.largest[q] = std::max(total.largest[q], part.largest[q]);
    add_scaled(total.sums + sums, part.sums + sums, 16, keep, scale);
    add_scaled(total.values + values, part.values + values, head_dim, keep, scale);
  }
}

// out = weighted values / denominator.
inline void finish_attention(const AttentionPack& a, const AttentionPart& total) {
  const int head_dim = a.cache.layout.head_dim;
  for (int q = 0; q < a.queries; ++q) {
    const F inverse = set1(1.0f / reduce_add(load(total.sums + q * 16)));
    for (int d = 0; d < head_dim; d += 16)
      store(a.out[q] + d, mul(load(total.values + static_cast<size_t>(q) * head_dim + d), inverse));
  }
}

}  // namespace outrider::OUTRIDER_ISA
