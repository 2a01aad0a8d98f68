// Keyed sampling: the noise of a token is a pure function of (seed, position, token), so a sample is an argmax that
// does not care when, in which batch or how often it is taken.
#pragma once
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace outrider {

// Philox4x32-10, a counter-based generator (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").
void philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

// Standard Gumbel noise of a token: -log(-log(u)), u uniform on the midpoints of 2^32 equal parts of (0, 1).
double gumbel_noise(uint64_t seed, uint64_t position, uint32_t token);

// Logits of some tokens: of `tokens[i]`, or of token i where `tokens` is null.
struct Scores {
  const float* logits;
  size_t count;
  const int32_t* tokens = nullptr;

  int32_t token(size_t i) const { return tokens ? tokens[i] : static_cast<int32_t>(i); }
};

struct SamplingFilter {
  double temperature;  // 0: the likeliest token, whatever the filters
  int64_t top_k;       // 0: all
  double top_p, min_p, typical_p; // 1, 0, 1: all
};

// A token and its logit / temperature + noise; at temperature 0 its logit.
struct Contender {
  int32_t token;
  double value;
};

class Sampler {
 public:
  // The token with the largest logit / temperature + noise among those that the filters keep. Filters apply in the
  // order top_k, top_p, min_p, typical_p to the probabilities softmax(logits / temperature); equal logits rank by token
  // id. NaN is never chosen, and -infinity only where there is nothing else.
  int32_t sample(const Scores& scores, const SamplingFilter& filter, uint64_t seed, uint64_t position);

  // The `count` foremost of this race: the winner is what sample() returns, the others are what it would most likely
  // have been had the logits been a little different. Fewer if fewer have a finite logit.
  const std::vector<Contender>& foremost(const Scores& scores, const SamplingFilter& filter, uint64_t seed, uint64_t position, size_t count);

  // The tokens that the filters keep, likeliest first: for tests of the distribution.
  std::vector<int32_t> kept(const Scores& scores, const SamplingFilter& filter);

 private:
  void rank(const Scores& scores, const SamplingFilter& filter);
  void keep_typical(const Scores& scores, const SamplingFilter& filter, double top);

  std::vector<Contender> foremost_;  // best first
  std::vector<uint32_t> ranked_;     // candidates by index, after a call of rank()
  std::vector<std::pair<double, uint32_t>> surprises_;
};

// The `count` likeliest tokens, likeliest first, and their probabilities under softmax(logits): fewer if fewer have a
// finite logit. NaN counts as -infinity.
std::vector<std::pair<int32_t, float>> likeliest(const Scores& scores, size_t count);

// log(sum(exp(logits))): what a logit lies above its log-probability by.
double log_total(const Scores& scores);

}  // namespace outrider
