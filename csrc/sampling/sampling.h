// Keyed sampling: a token's Gumbel noise is a pure function of (seed, position, token), so a sample is an argmax that does not
// depend on when, in which batch or how often it is computed.
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

// Tokens per group: the largest noise of a group is drawn first.
constexpr uint32_t kNoiseGroup = 64;

// Standard Gumbel noise of a token: -log(e) of an exponential variable e. It is drawn top-down, as in A* sampling (Maddison,
// Tarlow and Minka 2014): first the minimum e of each group of 64 tokens, which is exponential with rate 64 and equally likely
// to be any token's; as the distribution is memoryless, each other token's e is that minimum plus an exponential variable of
// its own. The latter need not be drawn if even the group's maximum noise is too small.
double gumbel_noise(uint64_t seed, uint64_t position, uint32_t token);

// The token of a group with the largest noise, and its exponential variable.
struct GroupMaximum {
  uint32_t group, token;
  double exponential, noise;
};

// Logits of the listed tokens: logits[i] belongs to tokens[i], or to token i if `tokens` is null.
struct Scores {
  const float* logits;  // (count)
  size_t count;
  const int32_t* tokens = nullptr;  // (count)

  int32_t token(size_t i) const { return tokens ? tokens[i] : static_cast<int32_t>(i); }
};

struct SamplingFilter {
  double temperature;              // 0 is greedy: the filters are ignored
  int64_t top_k;                   // 0: no limit
  double top_p, min_p, typical_p;  // off at 1, 0, 1
};

// A token and its logit / temperature + noise; in greedy decoding, its logit.
struct Candidate {
  int32_t token;
  double value;
};

// Orders by descending value, then by ascending token.
inline bool before(const Candidate& a, const Candidate& b) {
  return a.value > b.value || (a.value == b.value && a.token < b.token);
}

// Gumbel top-k: finds the k tokens with the largest logit / temperature + noise, which are k samples without replacement (Kool
// et al. 2019). The order in which tokens are added does not change the result; it decides only how many tokens can be
// skipped without drawing their noise.
class GumbelTopK {
 public:
  // Starts a search with the noise of (seed, position). Tokens with a smaller logit than min_logit are ignored.
  void begin(uint64_t seed, uint64_t position, double temperature, size_t k,
             double min_logit = -std::numeric_limits<double>::infinity());
  // Adds the tokens with indices begin .. end - 1 of `scores`; `begin` is a multiple of 64.
  void add(const Scores& scores, int64_t begin, int64_t end);
  // Adds one token.
  void add(int32_t token, float logit);
  // Best first; fewer than k if fewer tokens with a logit above -infinity were added.
  const std::vector<Candidate>& best() const { return best_; }

 private:
  double temperature_ = 1.0, min_logit_ = 0.0;
  double threshold_ = 0.0;  // value of the k-th best candidate; -infinity while there are fewer than k
  size_t k_ = 1;
  GumbelSearch search_{};
  GroupMaximum maximum_{};  // of the group of the token added last
  std::vector<Candidate> best_;
};

class Sampler {
 public:
  // The token with the largest logit / temperature + noise among those that pass the filters. Filters apply in the order
  // top_k, top_p, min_p, typical_p to the probabilities softmax(logits / temperature); equal logits rank by token id. NaN is
  // never sampled, and -infinity only if there is nothing else: then the result is the first token.
  int32_t sample(const Scores& scores, const SamplingFilter& filter, uint64_t seed, uint64_t position);

  // The k best candidates. The first is the result of sample(); the others are the most likely results if the logits were
  // slightly different. Fewer than k if fewer tokens pass the filters.
  const std::vector<Candidate>& gumbel_top_k(const Scores& scores, const SamplingFilter& filter, uint64_t seed, uint64_t position,
                                             size_t k);

  // The tokens that pass the filters, by descending logit.
  std::vector<int32_t> kept(const Scores& scores, const SamplingFilter& filter);

 private:
  void apply_filters(const Scores& scores, const SamplingFilter& filter);
  void keep_typical(const Scores& scores, const SamplingFilter& filter, double top);

  GumbelTopK search_;
  std::vector<Candidate> greedy_;  // at temperature 0, best first
  std::vector<uint32_t> kept_;     // indices that pass the filters, set by apply_filters()
  std::vector<std::pair<double, uint32_t>> surprisals_;
};

// The `count` most likely tokens, most likely first, with their probabilities under softmax(logits). Fewer if fewer have a
// finite logit. NaN counts as -infinity.
std::vector<std::pair<int32_t, float>> likeliest(const Scores& scores, size_t count);

// log(sum(exp(logits))): a token's log-probability is its logit minus this.
double logsumexp(const Scores& scores);

}  // namespace outrider
