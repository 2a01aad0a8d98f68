#include "sampling.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace outrider {

void philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]) {
  uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3], k0 = key[0], k1 = key[1];
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53u} * c0, p1 = uint64_t{0xCD9E8D57u} * c2;
    c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
    c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c1 = static_cast<uint32_t>(p1);
    c3 = static_cast<uint32_t>(p0);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

double gumbel_noise(uint64_t seed, uint64_t position, uint32_t token) {
  const uint32_t counter[4] = {token / 4, 0, static_cast<uint32_t>(position), static_cast<uint32_t>(position >> 32)};
  const uint32_t key[2] = {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)};
  uint32_t words[4];
  philox4x32(counter, key, words);
  return -std::log(-std::log((words[token % 4] + 0.5) * 0x1p-32));
}

namespace {

// No noise is larger than this: that of the last of the 2^32 parts.
const double kLargestNoise = -std::log(-std::log((4294967295.0 + 0.5) * 0x1p-32)) + 1e-9;

float largest(const float* logits, size_t count) {
  float best = -std::numeric_limits<float>::infinity();
  for (size_t i = 0; i < count; ++i) best = logits[i] > best ? logits[i] : best;
  return best;
}

}  // namespace

void Sampler::rank(const float* logits, size_t count, const SamplingFilter& f) {
  const auto likelier = [&](int32_t a, int32_t b) { return logits[a] > logits[b] || (logits[a] == logits[b] && a < b); };
  ranked_.clear();
  const double top = largest(logits, count);
  for (size_t i = 0; i < count; ++i)
    if (logits[i] > -std::numeric_limits<float>::infinity()) ranked_.push_back(static_cast<int32_t>(i));
  if (f.top_k > 0 && static_cast<size_t>(f.top_k) < ranked_.size()) {
    std::nth_element(ranked_.begin(), ranked_.begin() + f.top_k, ranked_.end(), likelier);
    ranked_.resize(f.top_k);
  }
  double total = 0.0;  // summed in token order, so that it does not depend on how nth_element left the candidates
  std::sort(ranked_.begin(), ranked_.end());
  for (int32_t t : ranked_) total += std::exp((logits[t] - top) / f.temperature);
  if (f.top_p < 1.0) {
    // Sort only as many as the mass needs: rounds of fourfold size.
    double mass = 0.0;
    size_t sorted = 0, keep = ranked_.size();
    while (sorted < ranked_.size()) {
      const size_t upto = std::min(ranked_.size(), std::max<size_t>(64, sorted * 4));
      std::partial_sort(ranked_.begin() + sorted, ranked_.begin() + upto, ranked_.end(), likelier);
      for (; sorted < upto; ++sorted) {
        mass += std::exp((logits[ranked_[sorted]] - top) / f.temperature);
        if (mass >= f.top_p * total) {
          keep = sorted + 1;
          sorted = ranked_.size();
          break;
        }
      }
    }
    ranked_.resize(keep);
  }
  if (f.min_p > 0.0) {
    const double least = top + f.temperature * std::log(f.min_p);
    std::erase_if(ranked_, [&](int32_t t) { return logits[t] < least; });
  }
}

std::vector<int32_t> Sampler::kept(const float* logits, size_t count, const SamplingFilter& f) {
  rank(logits, count, f);
  std::sort(ranked_.begin(), ranked_.end(), [&](int32_t a, int32_t b) { return logits[a] > logits[b] || (logits[a] == logits[b] && a < b); });
  return ranked_;
}

int32_t Sampler::sample(const float* logits, size_t count, const SamplingFilter& f, uint64_t seed, uint64_t position) {
  int32_t best = 0;
  double best_value = -std::numeric_limits<double>::infinity();
  // A token far below the best so far cannot win even with the largest noise, so its noise is not computed: which
  // tokens are skipped depends on the order, the winner does not.
  const auto consider = [&](int32_t t) {
    const double value = logits[t] / f.temperature;
    if (!(value + kLargestNoise >= best_value)) return;
    const double noisy = value + gumbel_noise(seed, position, static_cast<uint32_t>(t));
    if (noisy > best_value || (noisy == best_value && t < best)) best_value = noisy, best = t;
  };
  if (f.top_k > 0 || f.top_p < 1.0) {
    rank(logits, count, f);
    for (int32_t t : ranked_) consider(t);
    return best;
  }
  const float top = largest(logits, count);
  if (!(top > -std::numeric_limits<float>::infinity())) return 0;
  const double least = f.min_p > 0.0 ? top + f.temperature * std::log(f.min_p) : -std::numeric_limits<double>::infinity();
  consider(static_cast<int32_t>(std::find(logits, logits + count, top) - logits));  // a good start skips most others
  for (size_t i = 0; i < count; ++i)
    if (logits[i] > -std::numeric_limits<float>::infinity() && logits[i] >= least) consider(static_cast<int32_t>(i));
  return best;
}

}  // namespace outrider
