// Pruning for Gumbel top-k sampling, which takes the k tokens with the largest logit + temperature * noise. Noise is drawn per
// group of 64 tokens, maximum first (see sampling.h): an upper bound on that maximum excludes most groups. sampling.cpp
// computes the remaining tokens exactly.
// Bounded by reading the logits once: the generator runs once per 1024 logits.
#pragma once
#include "kernels/kernel_table.h"

namespace outrider::OUTRIDER_ISA {

inline I all_lanes(uint32_t x) {
  const int32_t bits = static_cast<int32_t>(x);
  return ibroadcast(&bits);
}

// Philox4x32-10 (see philox4x32 in sampling.h) for 16 groups, one per lane. Returns its first word, which determines the
// group's maximum noise.
inline I group_word(const GumbelSearch& search, I group) {
  uint32_t k0 = static_cast<uint32_t>(search.seed), k1 = static_cast<uint32_t>(search.seed >> 32);
  I c0 = group, c1 = all_lanes(kGroupStream);
  I c2 = all_lanes(static_cast<uint32_t>(search.position)), c3 = all_lanes(static_cast<uint32_t>(search.position >> 32));
  for (int round = 0; round < 10; ++round) {
    const Products p0 = imul_wide(c0, 0xD2511F53u), p1 = imul_wide(c2, 0xCD9E8D57u);
    c0 = ixor(p1.high, c1, all_lanes(k0));
    c2 = ixor(p0.high, c3, all_lanes(k1));
    c1 = p1.low;
    c3 = p0.low;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return c0;
}

// An upper bound on a group's maximum noise, log(64) - log(-log(u)) with u = (word + 0.5) / 2^32. The bound is above log(64),
// does not decrease with the word, and exceeds large noise by about 0.06.
// Derivation: -log(u) > 1 - u, so the noise is below log(64) - log(1 - u). With n = floor((2^32 - 1 - word) / 2), 1 - u is at
// least x / 2^31 where x = n + 0.25. The bits of a float x, read as an integer, are at most 2^23 * (127 + log2(x)), as they
// interpolate linearly between powers of two. This gives log(64) + 158 log(2) - log(2) / 2^23 * bits(x). Rounding lowers the
// result by less than 5e-5; the constant contains a margin of 0.001.
inline F noise_bound(I word) {
  const I n = ishift_right<1>(isub(all_lanes(0xFFFFFFFFu), word));
  const F bits = to_float(as_int(add(to_float(n), set1(0.25f))));
  return fma(bits, set1(-8.262958e-8f), set1(113.6772f));
}

// Upper bounds on logit + temperature * noise, up to one rounding of the sum: min_sum must therefore be lower than the exact
// threshold by more than a rounding error.
inline F sum_bounds(const GumbelSearch& search, F logits, I group) {
  return fma(noise_bound(group_word(search, group)), set1(search.temperature), logits);
}

// The largest of logits[0 .. count - 1], count <= 64; -infinity if all are NaN.
inline float largest_of(const float* logits, int64_t count) {
  F lanes = set1(-__builtin_inff());
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) lanes = max(load(logits + i), lanes);  // ignores NaN
  float largest = reduce_max(lanes);
  for (; i < count; ++i) largest = logits[i] > largest ? logits[i] : largest;
  return largest;
}

// Searches logits[begin .. end - 1], begin a multiple of 64, for the next group of 64 that may contain a candidate. Returns
// the index where that group begins, or `end`.
inline int64_t next_candidates(const float* logits, int64_t begin, int64_t end, const GumbelSearch& search) {
  static constexpr int32_t kLanes[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  for (; begin < end; begin += 1024) {
    float largest[16], sums[16];
    for (int64_t g = 0; g < 16; ++g) {
      const int64_t left = end - begin - 64 * g;
      largest[g] = left > 0 ? largest_of(logits + begin + 64 * g, left < 64 ? left : 64) : -__builtin_inff();
    }
    if (!any_above(load(largest), set1(search.min_logit))) continue;
    const I group = iadd(iload(kLanes), all_lanes(static_cast<uint32_t>(begin / 64)));
    const F bounds = sum_bounds(search, load(largest), group);
    if (!any_above(bounds, set1(search.min_sum))) continue;
    store(sums, bounds);
    for (int64_t g = 0; g < 16; ++g)
      if (largest[g] > search.min_logit && sums[g] > search.min_sum) return begin + 64 * g;
  }
  return end;
}

// The same for a list of tokens and their logits, in blocks of 16; begin is a multiple of 16.
inline int64_t next_listed_candidates(const float* logits, const int32_t* tokens, int64_t begin, int64_t end,
                                      const GumbelSearch& search) {
  for (; begin < end; begin += 16) {
    const float* at = logits + begin;
    const int32_t* ids = tokens + begin;
    float tail[16];
    int32_t tail_ids[16];
    if (end - begin < 16) {
      for (int i = 0; i < 16; ++i)
        tail[i] = i < end - begin ? at[i] : -__builtin_inff(), tail_ids[i] = i < end - begin ? ids[i] : 0;
      at = tail, ids = tail_ids;
    }
    if (!any_above(load(at), set1(search.min_logit))) continue;
    if (any_above(sum_bounds(search, load(at), ishift_right<6>(iload(ids))), set1(search.min_sum))) return begin;
  }
  return end;
}

}  // namespace outrider::OUTRIDER_ISA
