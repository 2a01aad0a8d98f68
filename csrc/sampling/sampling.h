// Keyed sampling: the noise of a token is a pure function of (seed, position, token), so a sample is an argmax that
// does not care when, in which batch or how often it is taken.
#pragma once
#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "kernels/kernel_table.h"

namespace outrider {

// Philox4x32-10, a counter-based generator (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").
void philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

// Standard Gumbel noise of a token, -log(e) of an exponential variable e. The smallest e of each group of 64 tokens is drawn
// first, with the token whose it is: of 64 it is exponential too, 64 times as small, and any token's as likely. Beyond it the
// others begin anew: theirs is that one plus an exponential variable of their own, which need not be drawn where even the
// smallest is too large. (Maddison, Tarlow and Minka 2014, "A* sampling", draw Gumbel noise from the top down too.)
double gumbel_noise(uint64_t seed, uint64_t position, uint32_t token);

constexpr uint32_t kNoiseGroup = 64;

// The token of a group that has the smallest exponential variable, `least`, and so the largest noise.
struct Leader {
  uint32_t group, token;
  double least, noise;
};

// Logits of some tokens: of `tokens[i]`, or of token i where `tokens` is null.
struct Scores {
  const float* logits;
  size_t count;
  const int32_t* tokens = nullptr;

  int32_t token(size_t i) const { return tokens ? tokens[i] : static_cast<int32_t>(i); }
};

struct SamplingFilter {
  double temperature;              // 0: the likeliest token, whatever the filters
  int64_t top_k;                   // 0: all
  double top_p, min_p, typical_p;  // 1, 0, 1: all
};

// A token and its logit / temperature + noise; at temperature 0 its logit.
struct Contender {
  int32_t token;
  double value;
};

// Who comes first: a larger value, and of equal ones the lower token.
inline bool before(const Contender& a, const Contender& b) {
  return a.value > b.value || (a.value == b.value && a.token < b.token);
}

// A race in work: the foremost of the tokens seen so far. Tokens may join in any order: those that cannot come first any
// more are skipped, and which these are depends on the order, but who is foremost does not.
class Contest {
 public:
  // Begins anew, with the noise of (seed, position). count: how many to find; least: no smaller logit takes part.
  void begin(uint64_t seed, uint64_t position, double temperature, size_t count,
             double least = -std::numeric_limits<double>::infinity());
  // Tokens whose index in `scores` lies in [begin, end); `begin` is a multiple of 64.
  void join(const Scores& scores, int64_t begin, int64_t end);
  // One token.
  void join(int32_t token, float logit);
  // Best first; fewer than `count` while fewer with a finite logit have joined.
  const std::vector<Contender>& foremost() const { return foremost_; }

 private:
  double temperature_ = 1.0, least_ = 0.0,
         least_value_ = 0.0;  // least_value_: what the last of the foremost has, once they are so many
  size_t count_ = 1;
  Race race_{};
  Leader leader_{};  // of the group of the token that joined last
  std::vector<Contender> foremost_;
};

class Sampler {
 public:
  // The token with the largest logit / temperature + noise among those that the filters keep. Filters apply in the
  // order top_k, top_p, min_p, typical_p to the probabilities softmax(logits / temperature); equal logits rank by token
  // id. NaN is never chosen, and -infinity only where there is nothing else.
  int32_t sample(const Scores& scores, const SamplingFilter& filter, uint64_t seed, uint64_t position);

  // The `count` foremost of this race: the winner is what sample() returns, the others are what it would most likely
  // have been had the logits been a little different. Fewer if fewer have a finite logit.
  const std::vector<Contender>& foremost(const Scores& scores, const SamplingFilter& filter, uint64_t seed, uint64_t position,
                                         size_t count);

  // The tokens that the filters keep, likeliest first: for tests of the distribution.
  std::vector<int32_t> kept(const Scores& scores, const SamplingFilter& filter);

 private:
  void rank(const Scores& scores, const SamplingFilter& filter);
  void keep_typical(const Scores& scores, const SamplingFilter& filter, double top);

  Contest contest_;
  std::vector<Contender> likeliest_;  // at temperature 0, best first
  std::vector<uint32_t> ranked_;      // candidates by index, after a call of rank()
  std::vector<std::pair<double, uint32_t>> surprises_;
};

// The `count` likeliest tokens, likeliest first, and their probabilities under softmax(logits): fewer if fewer have a
// finite logit. NaN counts as -infinity.
std::vector<std::pair<int32_t, float>> likeliest(const Scores& scores, size_t count);

// log(sum(exp(logits))): what a logit lies above its log-probability by.
double log_total(const Scores& scores);

}  // namespace outrider
