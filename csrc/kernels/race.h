// Sampling as a race: the token with the largest logit + temperature * noise wins. Most tokens are shown here to be too
// slow, 64 at a time, by a bound on the largest noise of their group, which is drawn first (see sampling.h); the few others
// are left to exact arithmetic in sampling.cpp.
// Bounded by reading the logits once: the generator runs once for 1024 of them.
#pragma once
#include "kernels/kernel_table.h"

namespace outrider::OUTRIDER_ISA {

inline I all_lanes(uint32_t x) {
  const int32_t bits = static_cast<int32_t>(x);
  return ibroadcast(&bits);
}

// Philox4x32-10 (see philox4x32 in sampling.h) for the leaders of 16 groups, one a lane: its first word, which says how
// large the largest noise of the group is.
inline I leader_word(const Race& race, I group) {
  uint32_t k0 = static_cast<uint32_t>(race.seed), k1 = static_cast<uint32_t>(race.seed >> 32);
  I c0 = group, c1 = all_lanes(kOfLeaders);
  I c2 = all_lanes(static_cast<uint32_t>(race.position)), c3 = all_lanes(static_cast<uint32_t>(race.position >> 32));
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

// More than the noise log(64) - log(-log(u)) of a leader, u = (word + 0.5) / 2^32, more than log(64), and never falling in
// the word; of large noise some 0.06 more. -log(u) > 1 - u, so the noise is below log(64) - log(1 - u). With
// n = (2^32 - 1 - word) / 2 rounded down, 1 - u is at least (n + 0.25) / 2^31. And the bits of a float, read as an integer,
// are at most 2^23 * (127 + log2 of the float): they run straight between powers of two, below the logarithm. That makes
// log(64) + 158 log(2) - log(2) / 2^23 * bits. Rounding takes less than 5e-5 from it, and the constant has 0.001 to spare.
inline F noise_bound(I word) {
  const I n = ishift_right<1>(isub(all_lanes(0xFFFFFFFFu), word));
  const F bits = to_float(as_int(add(to_float(n), set1(0.25f))));
  return fma(bits, set1(-8.262958e-8f), set1(113.6772f));
}

// What logits with the noise of their groups' leaders reach at most. The sum is rounded once, which can take it down to the
// bound itself: race.bound has to lie clearly below what is needed to join.
inline F reach(const Race& race, F logits, I group) {
  return fma(noise_bound(leader_word(race, group)), set1(race.temperature), logits);
}

// The largest of logits[0 .. count - 1], count at most 64; -infinity if there is nothing but NaN.
inline float largest_of(const float* logits, int64_t count) {
  F most = set1(-__builtin_inff());
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) most = max(load(logits + i), most);  // drops NaN
  float largest = reduce_max(most);
  for (; i < count; ++i) largest = logits[i] > largest ? logits[i] : largest;
  return largest;
}

// Looks through logits[begin .. end - 1] (begin is a multiple of 64) for a group of 64 in which one may join, and returns
// where it begins; `end` if there is none. Reads each logit once, and draws once for 16 groups.
inline int64_t next_group(const float* logits, int64_t begin, int64_t end, const Race& race) {
  static constexpr int32_t kLanes[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  for (; begin < end; begin += 1024) {
    float largest[16], reached[16];
    for (int64_t g = 0; g < 16; ++g) {
      const int64_t left = end - begin - 64 * g;
      largest[g] = left > 0 ? largest_of(logits + begin + 64 * g, left < 64 ? left : 64) : -__builtin_inff();
    }
    if (!any_above(load(largest), set1(race.least))) continue;
    const I group = iadd(iload(kLanes), all_lanes(static_cast<uint32_t>(begin / 64)));
    const F sums = reach(race, load(largest), group);
    if (!any_above(sums, set1(race.bound))) continue;
    store(reached, sums);
    for (int64_t g = 0; g < 16; ++g)
      if (largest[g] > race.least && reached[g] > race.bound) return begin + 64 * g;
  }
  return end;
}

// The same for tokens[begin .. end - 1] and their logits, 16 at a time (begin is a multiple of 16).
inline int64_t next_named_group(const float* logits, const int32_t* tokens, int64_t begin, int64_t end, const Race& race) {
  for (; begin < end; begin += 16) {
    const float* at = logits + begin;
    const int32_t* names = tokens + begin;
    float tail[16];
    int32_t tail_names[16];
    if (end - begin < 16) {
      for (int i = 0; i < 16; ++i)
        tail[i] = i < end - begin ? at[i] : -__builtin_inff(), tail_names[i] = i < end - begin ? names[i] : 0;
      at = tail, names = tail_names;
    }
    if (!any_above(load(at), set1(race.least))) continue;
    if (any_above(reach(race, load(at), ishift_right<6>(iload(names))), set1(race.bound))) return begin;
  }
  return end;
}

}  // namespace outrider::OUTRIDER_ISA
