// Sampling as a race: the token with the largest logit + temperature * noise wins. Most tokens are shown here to be too
// slow, many at a time, by a bound on their noise; the few others are left to exact arithmetic in sampling.cpp.
// Bounded by the generator: ten rounds of two wide multiplications for every block of four tokens.
#pragma once
#include "../kernel_table.h"

namespace outrider::OUTRIDER_ISA {

inline I all_lanes(uint32_t x) {
  const int32_t bits = static_cast<int32_t>(x);
  return ibroadcast(&bits);
}

// Philox4x32-10 (see philox4x32 in sampling.h) for 16 blocks of noise, one per lane: lane j of words[w] is word w of
// block j.
inline void noise_words(const Race& race, I block, I words[4]) {
  uint32_t k0 = static_cast<uint32_t>(race.seed), k1 = static_cast<uint32_t>(race.seed >> 32);
  I c0 = block, c1 = izero();
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
  words[0] = c0, words[1] = c1, words[2] = c2, words[3] = c3;
}

// More than the noise -log(-log(u)) of u = (word + 0.5) / 2^32, more than 0, and never falling in the word; of large noise
// some 0.06 more. -log(u) > 1 - u, so the noise is below -log(1 - u). With n = (2^32 - 1 - word) / 2 rounded down, 1 - u
// is at least (n + 0.25) / 2^31. And the bits of a float, read as an integer, are at most 2^23 * (127 + log2 of the
// float): they run straight between powers of two, below the logarithm. That makes 158 log(2) - log(2) / 2^23 * bits.
// Rounding takes less than 5e-5 from it, and the constant has 0.001 to spare.
inline F noise_bound(I word) {
  const I n = ishift_right<1>(isub(all_lanes(0xFFFFFFFFu), word));
  const F bits = to_float(as_int(add(to_float(n), set1(0.25f))));
  return fma(bits, set1(-8.262958e-8f), set1(109.5183f));
}

// Whether one of these lanes may join, were its word the largest of the four. The sum is rounded once, which can take it
// down to the bound itself: race.bound has to lie clearly below what is needed to join.
inline bool any_may_join(const Race& race, F logits, const I words[4]) {
  const I word = imax_unsigned(imax_unsigned(words[0], words[1]), imax_unsigned(words[2], words[3]));
  return any_above(fma(noise_bound(word), set1(race.temperature), logits), set1(race.bound));
}

// Looks through tokens begin .. end - 1 (begin is a multiple of 64) for a group of 64 in which one may join. Writes the
// group's random words (64) in the order of its tokens and returns where it begins; `end` if there is none.
// Reads each logit once; a group whose largest logit is hopeless costs no random words.
inline int64_t next_group(const float* logits, int64_t begin, int64_t end, const Race& race, uint32_t* words) {
  static constexpr int32_t kLanes[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  for (; begin < end; begin += 64) {
    const float* at = logits + begin;
    float tail[64];
    if (end - begin < 64) {
      for (int i = 0; i < 64; ++i) tail[i] = i < end - begin ? at[i] : -__builtin_inff();
      at = tail;
    }
    F most = set1(-__builtin_inff());
    for (int i = 0; i < 64; i += 16) most = max(load(at + i), most);  // drops NaN
    const float largest = reduce_max(most);
    if (largest < race.least || largest == -__builtin_inff()) continue;
    I drawn[4];
    noise_words(race, iadd(iload(kLanes), all_lanes(static_cast<uint32_t>(begin / 4))), drawn);
    if (!any_may_join(race, set1(largest), drawn)) continue;
    int32_t by_word[4][16];
    for (int w = 0; w < 4; ++w) istore(by_word[w], drawn[w]);
    for (int i = 0; i < 64; ++i) words[i] = static_cast<uint32_t>(by_word[i % 4][i / 4]);
    return begin;
  }
  return end;
}

// The same for tokens[begin .. end - 1] and their logits, in groups of 16 (begin is a multiple of 16).
inline int64_t next_named_group(const float* logits, const int32_t* tokens, int64_t begin, int64_t end, const Race& race, uint32_t* words) {
  for (; begin < end; begin += 16) {
    const float* at = logits + begin;
    const int32_t* names = tokens + begin;
    float tail[16];
    int32_t tail_names[16];
    if (end - begin < 16) {
      for (int i = 0; i < 16; ++i) tail[i] = i < end - begin ? at[i] : -__builtin_inff(), tail_names[i] = i < end - begin ? names[i] : 0;
      at = tail, names = tail_names;
    }
    if (reduce_max(max(load(at), set1(-__builtin_inff()))) < race.least) continue;
    I drawn[4];
    noise_words(race, ishift_right<2>(iload(names)), drawn);
    if (!any_may_join(race, load(at), drawn)) continue;
    int32_t by_word[4][16];
    for (int w = 0; w < 4; ++w) istore(by_word[w], drawn[w]);
    for (int i = 0; i < 16; ++i) words[i] = static_cast<uint32_t>(by_word[names[i] & 3][i]);
    return begin;
  }
  return end;
}

}  // namespace outrider::OUTRIDER_ISA
