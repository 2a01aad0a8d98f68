// Attention of a few query heads over one head of the key-value cache.
//
// Layout in a page: keys in blocks of 16 positions, [position / 16][dimension][position % 16], so that each lane is a key and
// accumulates its score over the dimensions in ascending order; values [position][dimension]. A staged row has a slot, which is
// addressed as a position; see cache/kv_cache.h.
// 8-bit codes are accumulated unscaled: the scale of a key multiplies its score, the scale of a value its softmax weight.
//
// Exactness: scores are per key; softmax weights are summed by lane over blocks of 16 aligned positions, in position order;
// values are added in position order. A row's bits thus depend on the positions it attends to and on nothing else: neither on
// the slots of the keys nor on the other rows of the pass.
//
// The up to kMaxQueries queries of a pack share each load of keys and values. Positions that only some of them attend to, at
// either end, are processed one query at a time. Bounded by reading the cache (few rows) or by multiply-adds (many rows).
#pragma once
#include "kernels/attention_pack.h"

namespace outrider::OUTRIDER_ISA {

inline F load_cached(const float* p) { return load(p); }
inline F load_cached(const uint16_t* p) { return load_f16(p); }
inline F load_cached(const int8_t* p) { return load_i8(reinterpret_cast<const uint8_t*>(p)); }
template <class T> inline constexpr bool kScaled = sizeof(T) == 1;

// out[q][16 * b + lane] = query q . key (b, lane), for `kBlocks` consecutive blocks; scales: of their slots, for 8-bit keys.
template <class T, int kQueries, int kBlocks>
inline void score_blocks(const float* const* query, const T* keys, const float* scales, int head_dim, float* const* out) {
  F acc[kBlocks][kQueries];
  for (int b = 0; b < kBlocks; ++b)
    for (int q = 0; q < kQueries; ++q) acc[b][q] = zero();
  for (int d = 0; d < head_dim; ++d) {
    F x[kQueries];
    for (int q = 0; q < kQueries; ++q) x[q] = set1(query[q][d]);
    for (int b = 0; b < kBlocks; ++b) {
      const F k = load_cached(keys + (static_cast<size_t>(b) * head_dim + d) * 16);
      for (int q = 0; q < kQueries; ++q) acc[b][q] = fma(x[q], k, acc[b][q]);
    }
  }
  for (int b = 0; b < kBlocks; ++b)
    for (int q = 0; q < kQueries; ++q) {
      if constexpr (kScaled<T>) acc[b][q] = mul(acc[b][q], load(scales + 16 * b));
      store(out[q] + 16 * b, acc[b][q]);
    }
}

// Scores of positions base .. last, base a multiple of 16, into scores[q][position - base].
template <class T, int kQueries> void score_range(const AttentionPack& a, int64_t base, int64_t last, float* const* scores) {
  for (int64_t p = base; p <= last;) {
    const int64_t slot = p % kPagePositions;
    const int64_t left = (last - p) / 16 + 1, contiguous = (kPagePositions - slot) / 16;  // before the page ends
    int64_t blocks = left < contiguous ? left : contiguous;
    const T* at = a.cache.in_page<T>(p, a.cache.at.keys) + slot * a.head_dim;
    const float* scales = kScaled<T> ? a.cache.in_page<float>(p, a.cache.at.key_scales) + slot : nullptr;
    float* out[kQueries];
    for (int q = 0; q < kQueries; ++q) out[q] = scores[q] + (p - base);
    p += blocks * 16;
    constexpr int kMany = kQueries > 2 ? 3 : 4;
    while (blocks > 0) {
      const int n = blocks >= kMany ? kMany : 1;
      if (n == kMany) score_blocks<T, kQueries, kMany>(a.query, at, scales, a.head_dim, out);
      else score_blocks<T, kQueries, 1>(a.query, at, scales, a.head_dim, out);
      at += static_cast<size_t>(n) * 16 * a.head_dim;
      if constexpr (kScaled<T>) scales += 16 * n;
      for (int q = 0; q < kQueries; ++q) out[q] += 16 * n;
      blocks -= n;
    }
  }
}

// Replaces scores by weights e^(score - max) for first .. position, and by 0 outside; returns 1 / their sum.
inline float softmax(float* scores, int64_t base, int64_t first, int64_t position) {
  const int64_t blocks = (position - base) / 16 + 1;
  const float masked = -__builtin_inff();
  for (int64_t i = 0; i < first - base; ++i) scores[i] = masked;
  for (int64_t i = position - base + 1; i < blocks * 16; ++i) scores[i] = masked;
  F largest = set1(masked);
  for (int64_t b = 0; b < blocks; ++b) largest = max(load(scores + 16 * b), largest);
  const F m = set1(reduce_max(largest));
  F sum = zero();
  for (int64_t b = 0; b < blocks; ++b) {
    const F weight = exp(sub(load(scores + 16 * b), m));
    store(scores + 16 * b, weight);
    sum = add(sum, weight);
  }
  return 1.0f / reduce_add(sum);
}

// Multiplies the weights of positions base .. position by the scales of their 8-bit values.
inline void scale_weights(const AttentionPack& a, int q, float* weights, int64_t base) {
  const int64_t in_order = a.path[q] ? a.committed : a.position[q] + 1;
  int64_t p = base;
  for (; p + 16 <= in_order; p += 16) {
    float* w = weights + (p - base);
    store(w, mul(load(w), load(a.cache.in_page<float>(p, a.cache.at.value_scales) + p % kPagePositions)));
  }
  for (; p <= a.position[q]; ++p) {
    const int64_t row = p < in_order ? p : a.committed + a.path[q][p - a.committed];
    weights[p - base] *= a.cache.in_page<float>(row, a.cache.at.value_scales)[row % kPagePositions];
  }
}

template <class T> inline const T* value_at(const AttentionPack& a, int64_t position, int dimension) {
  return a.cache.in_page<T>(position, a.cache.at.values) + position % kPagePositions * a.head_dim + dimension;
}

// acc += weight * value for one query over positions from .. to - 1, in position order.
template <class T, int kVectors>
inline void add_values(const AttentionPack& a, int dimension, const float* weights, int64_t base, int64_t from, int64_t to,
                       F (&acc)[kVectors]) {
  for (int64_t p = from; p < to; ++p) {
    const T* v = value_at<T>(a, p, dimension);
    for (int i = 0; i < kVectors; ++i) acc[i] = fma(set1(weights[p - base]), load_cached(v + 16 * i), acc[i]);
  }
}

template <class T, int kQueries, int kVectors>
void mix_values(const AttentionPack& a, int dimension, int64_t base, float* const* weights, const float* inverse) {
  F acc[kQueries][kVectors];
  int64_t in_order[kQueries];  // end of the positions that lie in their own slots, before the path through a tree
  int64_t from = 0, to = INT64_MAX;
  for (int q = 0; q < kQueries; ++q) {
    for (int i = 0; i < kVectors; ++i) acc[q][i] = zero();
    in_order[q] = a.path[q] ? a.committed : a.position[q] + 1;
    from = a.first[q] > from ? a.first[q] : from;
    to = in_order[q] < to ? in_order[q] : to;
  }
  if (from > to) from = to;  // no position is shared by all queries
  for (int q = 0; q < kQueries; ++q) add_values<T>(a, dimension, weights[q], base, a.first[q], from, acc[q]);
  for (int64_t p = from; p < to; ++p) {
    const T* v = value_at<T>(a, p, dimension);
    F x[kVectors];
    for (int i = 0; i < kVectors; ++i) x[i] = load_cached(v + 16 * i);
    for (int q = 0; q < kQueries; ++q) {
      const F w = set1(weights[q][p - base]);
      for (int i = 0; i < kVectors; ++i) acc[q][i] = fma(w, x[i], acc[q][i]);
    }
  }
  for (int q = 0; q < kQueries; ++q) {
    add_values<T>(a, dimension, weights[q], base, a.first[q] > to ? a.first[q] : to, in_order[q], acc[q]);
    for (int64_t p = in_order[q] > a.first[q] ? in_order[q] : a.first[q]; p <= a.position[q]; ++p) {
      const T* v = value_at<T>(a, a.committed + a.path[q][p - a.committed], dimension);
      for (int i = 0; i < kVectors; ++i) acc[q][i] = fma(set1(weights[q][p - base]), load_cached(v + 16 * i), acc[q][i]);
    }
    for (int i = 0; i < kVectors; ++i) store(a.out[q] + dimension + 16 * i, mul(acc[q][i], set1(inverse[q])));
  }
}

template <class T, int kQueries> void attend_pack(const AttentionPack& a, float* scratch, size_t stride) {
  float* scores[kQueries];
  float inverse[kQueries];
  int64_t base = INT64_MAX, last = 0;
  for (int q = 0; q < kQueries; ++q) {
    scores[q] = scratch + q * stride;
    base = a.first[q] < base ? a.first[q] : base;
    const int64_t own = a.path[q] ? a.committed + a.path[q][a.position[q] - a.committed] : a.position[q];
    last = own > last ? own : last;
  }
  base = base / 16 * 16;
  score_range<T, kQueries>(a, base, last, scores);
  for (int q = 0; q < kQueries; ++q) {
    if (a.path[q])  // an ancestor's slot is never before its position, so moving scores towards the front in order is safe
      for (int64_t p = a.committed > base ? a.committed : base; p <= a.position[q]; ++p)
        scores[q][p - base] = scores[q][a.committed + a.path[q][p - a.committed] - base];
    inverse[q] = softmax(scores[q], base, a.first[q], a.position[q]);
    if constexpr (kScaled<T>) scale_weights(a, q, scores[q], base);
  }
  constexpr int kWide = kQueries > 2 ? 4 : 8;
  int d = 0;
  for (; d + 16 * kWide <= a.head_dim; d += 16 * kWide) mix_values<T, kQueries, kWide>(a, d, base, scores, inverse);
  for (; d < a.head_dim; d += 16) mix_values<T, kQueries, 1>(a, d, base, scores, inverse);
}

template <class T> void attend_in(const AttentionPack& a, float* scratch, size_t stride) {
  static_assert(kMaxQueries == 4);
  switch (a.queries) {
    case 1: return attend_pack<T, 1>(a, scratch, stride);
    case 2: return attend_pack<T, 2>(a, scratch, stride);
    case 3: return attend_pack<T, 3>(a, scratch, stride);
    default: return attend_pack<T, 4>(a, scratch, stride);
  }
}

inline void attend(const AttentionPack& a, float* scratch, size_t stride) {
  switch (a.cache.format) {
    case KvFormat::kFloat32: return attend_in<float>(a, scratch, stride);
    case KvFormat::kFloat16: return attend_in<uint16_t>(a, scratch, stride);
    case KvFormat::kInt8: return attend_in<int8_t>(a, scratch, stride);
  }
}

// The scale of one head's 8-bit codes. As in quantize_row, a head with a NaN or an infinity dequantizes to NaN.
struct HeadScale {
  float scale, inverse;
  bool finite;  // and not so small that 127 / scale overflows
};

inline HeadScale head_scale(const float* x, int head_dim) {
  const F infinity = set1(__builtin_inff());
  F magnitudes = zero();
  for (int d = 0; d < head_dim; d += 16) {
    const F magnitude = abs(load(x + d));
    magnitudes = max(select_below(magnitude, infinity, magnitude, infinity), magnitudes);
  }
  const float largest = reduce_max(magnitudes);
  const bool finite = largest > 1e-30f && largest < __builtin_inff();
  return {largest / 127.0f, finite ? 127.0f / largest : 0.0f, finite};
}

inline I head_codes(const float* x, const HeadScale& by) {
  return by.finite ? round_to_int(mul(load(x), set1(by.inverse))) : izero();
}

// Writes dimensions begin .. end - 1 (multiples of 16) of one row's key and value for one head at a position.
inline void store_kv(const float* key, const float* value, int head_dim, int begin, int end, int64_t position, const KvHead& to) {
  const size_t slot = position % kPagePositions, block = slot / 16 * head_dim * 16 + slot % 16, row = slot * head_dim;
  switch (to.format) {
    case KvFormat::kFloat32: {
      float *keys = to.in_page<float>(position, to.at.keys), *values = to.in_page<float>(position, to.at.values);
      for (int d = begin; d < end; ++d) keys[block + d * 16] = key[d];
      for (int d = begin; d < end; d += 16) store(values + row + d, load(value + d));
      return;
    }
    case KvFormat::kFloat16: {
      uint16_t *keys = to.in_page<uint16_t>(position, to.at.keys), *values = to.in_page<uint16_t>(position, to.at.values);
      for (int d = begin; d < end; d += 16) {
        uint16_t rounded[16];
        store_f16(rounded, load(key + d));
        for (int i = 0; i < 16; ++i) keys[block + (d + i) * 16] = rounded[i];
        store_f16(values + row + d, load(value + d));
      }
      return;
    }
    case KvFormat::kInt8: {
      int8_t *keys = to.in_page<int8_t>(position, to.at.keys), *values = to.in_page<int8_t>(position, to.at.values);
      const HeadScale of_key = head_scale(key, head_dim), of_value = head_scale(value, head_dim);
      for (int d = begin; d < end; d += 16) {
        int8_t codes[16];
        store_int8(codes, head_codes(key + d, of_key));
        for (int i = 0; i < 16; ++i) keys[block + (d + i) * 16] = codes[i];
        store_int8(values + row + d, head_codes(value + d, of_value));
      }
      if (begin > 0) return;
      to.in_page<float>(position, to.at.key_scales)[slot] = of_key.scale;
      to.in_page<float>(position, to.at.value_scales)[slot] = of_value.scale;
      return;
    }
  }
}

}  // namespace outrider::OUTRIDER_ISA
