// Scores of attention: products of queries and cached keys, in blocks of 16 slots. Each lane is a key, so a score depends on its
// own key alone; float products are added over the dimensions in ascending order, products of codes exactly, group by group of a
// key.
#pragma once
#include <algorithm>

#include "kernels/attention_pack.h"

namespace outrider::OUTRIDER_ISA {

inline void prefetch(const void* p) { __builtin_prefetch(p, 0, 2); }
inline F load_cached(const float* p) { return load(p); }
inline F load_cached(const uint16_t* p) { return load_f16(p); }

// The scale of 8-bit codes. As in quantize_row, numbers with a NaN or an infinity among them dequantize to NaN.
struct CodeScale {
  float scale, inverse;
  bool finite;  // and not so small that 127 / scale overflows
};

inline CodeScale scale_by(float largest) {
  const bool finite = largest > 1e-30f && largest < __builtin_inff();
  return {largest / 127.0f, finite ? 127.0f / largest : 0.0f, finite};
}

inline CodeScale code_scale(const float* x, int n) {
  const F infinity = set1(__builtin_inff());
  F magnitudes = zero();
  for (int d = 0; d < n; d += 16) {
    const F magnitude = abs(load(x + d));
    magnitudes = max(select_below(magnitude, infinity, magnitude, infinity), magnitudes);
  }
  return scale_by(reduce_max(magnitudes));
}

inline I codes_of(F x, const CodeScale& by) { return by.finite ? round_to_int(mul(x, set1(by.inverse))) : izero(); }

// The queries' codes, with one scale for each group of dimensions.
inline void quantize_queries(const AttentionPack& a, AttentionScratch& s) {
  const int head_dim = a.cache.layout.head_dim, groups = a.cache.layout.key_groups();
  for (int q = 0; q < a.queries; ++q) {
    for (int g = 0; g < groups; ++g) {
      const int begin = g * kKeyGroup, end = std::min(head_dim, begin + kKeyGroup);
      const CodeScale by = code_scale(a.query[q] + begin, end - begin);
      s.query_scales[q * groups + g] = by.scale;
      I sum = izero();
      for (int d = begin; d < end; d += 16) {
        const I codes = codes_of(load(a.query[q] + d), by);
        store_int8(s.codes.data() + q * head_dim + d, codes);
        sum = iadd(sum, codes);
      }
      s.starts[q * groups + g] = -kKeyOffset * reduce_sum(sum);
    }
  }
}

// Scores of `kQueries` queries from `first` on and `kBlocks` blocks from `block` of a page on, with float keys:
// out[query * stride + 16 * (number of the block) + lane].
template <class T> struct FloatScores {
  const AttentionPack& a;
  static constexpr int kMost = kFloatQueries;
  template <int kQueries> static constexpr int kBlocks = kFloatVectors<kQueries>;

  template <int kQueries, int kBlocks>
  void score(int first, const uint8_t* page, int block, ptrdiff_t to_next, float* out, size_t stride) const {
    const int head_dim = a.cache.layout.head_dim;
    const T* keys = reinterpret_cast<const T*>(page) + static_cast<size_t>(block) * head_dim * 16;
    F sum[kBlocks][kQueries];
    for (int b = 0; b < kBlocks; ++b)
      for (int q = 0; q < kQueries; ++q) sum[b][q] = zero();
    for (int d = 0; d < head_dim; ++d) {
      F k[kBlocks];
      for (int b = 0; b < kBlocks; ++b) {
        const T* at = keys + (static_cast<size_t>(b) * head_dim + d) * 16;
        if (to_next) prefetch(reinterpret_cast<const uint8_t*>(at) + to_next);
        k[b] = load_cached(at);
      }
      for (int q = 0; q < kQueries; ++q) {
        const F x = set1(a.query[first + q][d]);
        for (int b = 0; b < kBlocks; ++b) sum[b][q] = fma(x, k[b], sum[b][q]);
      }
    }
    for (int q = 0; q < kQueries; ++q)
      for (int b = 0; b < kBlocks; ++b) store(out + (first + q) * stride + 16 * b, sum[b][q]);
  }
};

// The same for codes.
struct CodeScores {
  const AttentionPack& a;
  const AttentionScratch& s;
  static constexpr int kMost = kCodeQueries;
  template <int kQueries> static constexpr int kBlocks = kCodeVectors<kQueries>;

  template <int kQueries, int kBlocks>
  void score(int first, const uint8_t* page, int block, ptrdiff_t to_next, float* out, size_t stride) const {
    const KvLayout& layout = a.cache.layout;
    const int head_dim = layout.head_dim, groups = layout.key_groups();
    const int8_t *keys = reinterpret_cast<const int8_t*>(page) + layout.key(16 * block, 0), *query[kQueries];
    const float* scales = reinterpret_cast<const float*>(page + layout.key_scales_at()) + layout.key_scale(16 * block, 0);
    for (int q = 0; q < kQueries; ++q) query[q] = s.codes.data() + (first + q) * head_dim;
    F score[kBlocks][kQueries];
    for (int b = 0; b < kBlocks; ++b)
      for (int q = 0; q < kQueries; ++q) score[b][q] = zero();
    for (int g = 0; g < groups; ++g) {
      I sum[kBlocks][kQueries];
      for (int q = 0; q < kQueries; ++q)
        for (int b = 0; b < kBlocks; ++b) sum[b][q] = ibroadcast(&s.starts[(first + q) * groups + g]);
      const int end = head_dim < (g + 1) * kKeyGroup ? head_dim : (g + 1) * kKeyGroup;
      for (int d = g * kKeyGroup; d < end; d += 4) {
        for (int b = 0; b < kBlocks; ++b) {
          const int8_t* at = keys + (static_cast<size_t>(b) * head_dim + d) * 16;
          if (to_next) prefetch(at + to_next);
          const KeyCodes k = key_codes(at);
          for (int q = 0; q < kQueries; ++q) sum[b][q] = add_scores(sum[b][q], k, query[q] + d);
        }
      }
      for (int b = 0; b < kBlocks; ++b) {
        const float* at = scales + (b * groups + g) * 16;
        if (to_next) prefetch(reinterpret_cast<const uint8_t*>(at) + to_next);
        const F key_scale = load(at);
        for (int q = 0; q < kQueries; ++q) {
          const F scale = mul(key_scale, set1(s.query_scales[(first + q) * groups + g]));
          score[b][q] = fma(to_float(sum[b][q]), scale, score[b][q]);
        }
      }
    }
    for (int q = 0; q < kQueries; ++q)
      for (int b = 0; b < kBlocks; ++b) store(out + (first + q) * stride + 16 * b, score[b][q]);
  }
};

// Calls work<count>(first) for blocks of at most kMost queries that cover 0 .. queries - 1.
template <int kMost, class Work> inline void each_query_block(int queries, const Work& work) {
  int q = 0;
  if constexpr (kMost >= 8)
    for (; q + 8 <= queries; q += 8) work.template operator()<8>(q);
  if constexpr (kMost >= 4)
    for (; q + 4 <= queries; q += 4) work.template operator()<4>(q);
  for (; q + 2 <= queries; q += 2) work.template operator()<2>(q);
  if (q < queries) work.template operator()<1>(q);
}

// Scores of all queries for blocks begin .. end - 1 of a page into out[query * stride + slot - 16 * begin]. A few blocks at a time,
// which stay in the first-level cache while all queries meet them.
template <class Scores>
void score_blocks(const Scores& scores, int queries, const uint8_t* page, int begin, int end, ptrdiff_t to_next, float* out,
                  size_t stride) {
  constexpr int kChunk = 4;
  for (int chunk = begin; chunk < end; chunk += kChunk) {
    const int stop = chunk + kChunk < end ? chunk + kChunk : end;
    each_query_block<Scores::kMost>(queries, [&]<int kQueries>(int first) {
      constexpr int kBlocks = Scores::template kBlocks<kQueries>;
      const ptrdiff_t ahead = first == 0 ? to_next : 0;
      int b = chunk;
      for (; b + kBlocks <= stop; b += kBlocks)
        scores.template score<kQueries, kBlocks>(first, page, b, ahead, out + 16 * (b - begin), stride);
      for (; b < stop; ++b) scores.template score<kQueries, 1>(first, page, b, ahead, out + 16 * (b - begin), stride);
    });
  }
}

}  // namespace outrider::OUTRIDER_ISA
