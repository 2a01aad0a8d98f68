// Keyed sampling: the noise of a token is a pure function of (seed, position, token), so a sample is an argmax that
// does not care when, in which batch or how often it is taken.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace outrider {

// Philox4x32-10, a counter-based generator (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").
void philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

// Standard Gumbel noise of a token: -log(-log(u)), u uniform on the midpoints of 2^32 equal parts of (0, 1).
double gumbel_noise(uint64_t seed, uint64_t position, uint32_t token);

struct SamplingFilter {
  double temperature;  // > 0
  int64_t top_k;       // 0: all
  double top_p, min_p; // 1, 0: all
};

class Sampler {
 public:
  // The token with the largest logit / temperature + noise among those that the filters keep. Filters apply in the
  // order top_k, top_p, min_p to the probabilities softmax(logits / temperature); equal logits rank by token id.
  // A logit of -infinity or NaN is never chosen; if all are, the result is token 0.
  int32_t sample(const float* logits, size_t count, const SamplingFilter& filter, uint64_t seed, uint64_t position);

  // The tokens that the filters keep, likeliest first: for tests of the distribution.
  std::vector<int32_t> kept(const float* logits, size_t count, const SamplingFilter& filter);

 private:
  void rank(const float* logits, size_t count, const SamplingFilter& filter);
  std::vector<int32_t> ranked_;  // candidates, likeliest first, after a call of rank()
};

}  // namespace outrider
