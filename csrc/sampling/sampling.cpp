#include "sampling/sampling.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "runtime/float_environment.h"
#include "runtime/reproducible_math.h"

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

namespace {

void random_words(uint64_t seed, uint64_t position, uint32_t number, uint32_t stream, uint32_t words[4]) {
  const uint32_t counter[4] = {number, stream, static_cast<uint32_t>(position), static_cast<uint32_t>(position >> 32)};
  const uint32_t key[2] = {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)};
  philox4x32(counter, key, words);
}

// A standard exponential variable: -log(u), with u uniform on the midpoints of 2^32 equal parts of (0, 1).
double exponential(uint32_t word) { return -reproducible::log((word + 0.5) * 0x1p-32); }

GroupMaximum maximum_of(uint64_t seed, uint64_t position, uint32_t group) {
  uint32_t words[4];
  random_words(seed, position, group, kGroupStream, words);
  const double minimum = exponential(words[0]) / kNoiseGroup;
  return {group, group * kNoiseGroup + words[1] % kNoiseGroup, minimum, -reproducible::log(minimum)};
}

// The noise of a token, given its group's maximum.
double noise_of(const GroupMaximum& maximum, uint64_t seed, uint64_t position, uint32_t token) {
  if (token == maximum.token) return maximum.noise;
  uint32_t words[4];
  random_words(seed, position, token / 4, kTokenStream, words);
  return -reproducible::log(maximum.exponential + exponential(words[token % 4]));
}

// The largest possible noise: that of a group whose first word is 2^32 - 1.
const double kLargestNoise = -reproducible::log(exponential(0xFFFFFFFFu) / kNoiseGroup) + 1e-9;

// Tokens whose logit is this far below the largest, in units of the temperature, do not change a sum in double.
constexpr double kNegligible = -60.0;

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();  // the logit of a masked token

// Calls visit(index) for all scores above the limit, in order; visit() may raise the limit. Fast if few scores exceed it.
template <class Visit> void for_each_above(const Scores& s, const float& limit, const Visit& visit) {
  const auto end = static_cast<int64_t>(s.count);
  for (int64_t group = 0; (group = active_kernels().next_above(s.logits, group, end, limit)) < end; group += 16)
    for (int64_t i = group; i < std::min(group + 16, end); ++i)
      if (s.logits[i] > limit) visit(static_cast<uint32_t>(i));
}

// The largest logit and its first index; -infinity and 0 if no logit is larger than -infinity.
std::pair<float, size_t> argmax(const Scores& s) {
  std::pair<float, size_t> best{kMinusInfinity, 0};
  for_each_above(s, best.first, [&](uint32_t i) { best = {s.logits[i], i}; });
  return best;
}

// A float below x by more than the rounding error of the kernels; -infinity if there is none.
float safely_below(double x) {
  const auto y = static_cast<float>(x - 1e-5 * std::abs(x) - std::numeric_limits<float>::min());
  return std::isfinite(y) ? y : kMinusInfinity;
}

// The softmax denominator: the sum of e^((logit - top) / temperature) over all scores.
double softmax_denominator(const Scores& s, double top, double temperature) {
  return active_kernels().sum_exp(s.logits, static_cast<int64_t>(s.count), static_cast<float>(top),
                                  static_cast<float>(1.0 / temperature));
}

// Orders indices by descending logit, then by ascending token.
struct ByLogit {
  const Scores& s;
  bool operator()(uint32_t a, uint32_t b) const {
    return s.logits[a] > s.logits[b] || (s.logits[a] == s.logits[b] && s.token(a) < s.token(b));
  }
};

// Indices of the `count` largest logits above -infinity, in that order.
std::vector<uint32_t> largest(const Scores& s, size_t count) {
  const ByLogit by_logit{s};
  std::vector<uint32_t> best;  // a heap with the smallest logit in front
  float limit = kMinusInfinity;
  if (count == 0) return best;
  for_each_above(s, limit, [&](uint32_t i) {
    if (best.size() == count) {
      if (!by_logit(i, best.front())) return;
      std::pop_heap(best.begin(), best.end(), by_logit);
      best.pop_back();
    }
    best.push_back(i);
    std::push_heap(best.begin(), best.end(), by_logit);
    if (best.size() == count)
      limit = std::nextafter(s.logits[best.front()], kMinusInfinity);  // an equal logit of a lower token replaces it
  });
  std::sort_heap(best.begin(), best.end(), by_logit);
  return best;
}

// Sorts `items` by `before` as far as needed and returns the length of the shortest prefix whose weights sum to `mass`. Sorts in
// rounds that grow fourfold.
template <class Item, class Before, class Weight>
size_t prefix_of_mass(std::vector<Item>& items, double mass, const Before& before, const Weight& weight) {
  double sum = 0.0;
  size_t sorted = 0;
  while (sorted < items.size()) {
    const size_t upto = std::min(items.size(), std::max<size_t>(64, sorted * 4));
    std::partial_sort(items.begin() + sorted, items.begin() + upto, items.end(), before);
    for (; sorted < upto; ++sorted) {
      sum += weight(items[sorted]);
      if (sum >= mass) return sorted + 1;
    }
  }
  return items.size();
}

}  // namespace

void Sampler::apply_filters(const Scores& s, const SamplingFilter& f) {
  kept_.clear();
  const double top = argmax(s).first;
  const auto weight = [&](uint32_t i) { return reproducible::exp((s.logits[i] - top) / f.temperature); };
  double total = 0.0;
  if (f.top_k > 0 && static_cast<size_t>(f.top_k) < s.count) {
    kept_ = largest(s, static_cast<size_t>(f.top_k));
    std::sort(kept_.begin(), kept_.end());  // the sum below runs in token order
    for (uint32_t i : kept_) total += weight(i);
  } else {
    // Skips tokens so unlikely that `count` of them have less probability than top_p excludes: none of them can be kept.
    total = softmax_denominator(s, top, f.temperature);
    const double negligible = f.top_p < 1.0 ? 0.99 * (1.0 - f.top_p) * total / static_cast<double>(s.count) : 0.0;
    const double min_logit = std::isfinite(total) ? top + f.temperature * reproducible::log(negligible) : top;
    for_each_above(s, safely_below(min_logit), [&](uint32_t i) {
      if (s.logits[i] >= min_logit) kept_.push_back(i);
    });
  }
  if (f.top_p < 1.0) kept_.resize(prefix_of_mass(kept_, f.top_p * total, ByLogit{s}, weight));
  if (f.min_p > 0.0) {
    const double min_logit = top + f.temperature * reproducible::log(f.min_p);
    std::erase_if(kept_, [&](uint32_t i) { return s.logits[i] < min_logit; });
  }
  if (f.typical_p < 1.0) keep_typical(s, f, top);
}

// Locally typical sampling (Meister et al. 2023): keeps the tokens whose surprisal -log p is nearest to the entropy, until their
// probabilities sum to typical_p.
void Sampler::keep_typical(const Scores& s, const SamplingFilter& f, double top) {
  std::sort(kept_.begin(), kept_.end());
  double total = 0.0, weighted = 0.0;
  for (uint32_t i : kept_) {
    const double x = (s.logits[i] - top) / f.temperature;
    if (x <= kNegligible) continue;
    total += reproducible::exp(x);
    weighted += x * reproducible::exp(x);
  }
  const double log_total = reproducible::log(total), entropy = log_total - weighted / total;
  surprisals_.clear();
  for (uint32_t i : kept_) surprisals_.emplace_back(std::abs(log_total - (s.logits[i] - top) / f.temperature - entropy), i);
  const auto more_typical = [&](const auto& a, const auto& b) {
    return a.first < b.first || (a.first == b.first && s.token(a.second) < s.token(b.second));
  };
  const auto weight = [&](const auto& a) { return reproducible::exp((s.logits[a.second] - top) / f.temperature); };
  surprisals_.resize(prefix_of_mass(surprisals_, f.typical_p * total, more_typical, weight));
  kept_.clear();
  for (const auto& [surprisal, i] : surprisals_) kept_.push_back(i);
}

double gumbel_noise(uint64_t seed, uint64_t position, uint32_t token) {
  return noise_of(maximum_of(seed, position, token / kNoiseGroup), seed, position, token);
}

std::vector<int32_t> Sampler::kept(const Scores& s, const SamplingFilter& f) {
  const DefaultFloatEnvironment environment;
  apply_filters(s, f);
  std::sort(kept_.begin(), kept_.end(), ByLogit{s});
  std::vector<int32_t> tokens;
  for (uint32_t i : kept_) tokens.push_back(s.token(i));
  return tokens;
}

void GumbelTopK::begin(uint64_t seed, uint64_t position, double temperature, size_t k, double min_logit) {
  temperature_ = temperature;
  k_ = k;
  min_logit_ = min_logit;
  threshold_ = -std::numeric_limits<double>::infinity();
  search_ = GumbelSearch{seed, position, static_cast<float>(temperature), kMinusInfinity, safely_below(min_logit)};
  maximum_ = maximum_of(seed, position, 0);
  best_.clear();
}

void GumbelTopK::add(const Scores& s, int64_t begin, int64_t end) {
  const KernelTable& kernels = active_kernels();
  const int64_t group = s.tokens ? 16 : kNoiseGroup;
  for (int64_t at = begin; at < end; at += group) {
    at = s.tokens ? kernels.next_listed_candidates(s.logits, s.tokens, at, end, search_)
                  : kernels.next_candidates(s.logits, at, end, search_);
    for (int64_t i = at; i < std::min(at + group, end); ++i) add(s.token(static_cast<size_t>(i)), s.logits[i]);
  }
}

void GumbelTopK::add(int32_t token, float logit) {
  if (!(logit > search_.min_logit && logit >= min_logit_)) return;
  const auto id = static_cast<uint32_t>(token);
  if (maximum_.group != id / kNoiseGroup) maximum_ = maximum_of(search_.seed, search_.position, id / kNoiseGroup);
  const double scaled = logit / temperature_;
  if (!(scaled + maximum_.noise >= threshold_)) return;  // the group's maximum bounds the token's noise
  const Candidate candidate{token, scaled + noise_of(maximum_, search_.seed, search_.position, id)};
  if (best_.size() == k_) {
    if (!before(candidate, best_.back())) return;
    best_.pop_back();
  }
  best_.insert(std::upper_bound(best_.begin(), best_.end(), candidate, before), candidate);
  if (best_.size() < k_) return;
  threshold_ = best_.back().value;
  search_.min_sum = safely_below(threshold_ * temperature_);  // the margin of noise_bound() covers the rounded temperature
  search_.min_logit = std::max(search_.min_logit, safely_below((threshold_ - kLargestNoise) * temperature_));
}

int32_t Sampler::sample(const Scores& s, const SamplingFilter& f, uint64_t seed, uint64_t position) {
  const std::vector<Candidate>& found = gumbel_top_k(s, f, seed, position, 1);
  return found.empty() ? s.token(0) : found.front().token;
}

const std::vector<Candidate>& Sampler::gumbel_top_k(const Scores& s, const SamplingFilter& f, uint64_t seed, uint64_t position,
                                                    size_t k) {
  const DefaultFloatEnvironment environment;
  if (f.temperature == 0.0 || k == 0) {
    greedy_.clear();
    for (uint32_t i : largest(s, k)) greedy_.push_back({s.token(i), s.logits[i]});
    return greedy_;
  }
  if (f.top_k > 0 || f.top_p < 1.0 || f.typical_p < 1.0) {
    search_.begin(seed, position, f.temperature, k);
    apply_filters(s, f);
    for (uint32_t i : kept_) search_.add(s.token(i), s.logits[i]);
    return search_.best();
  }
  const auto [top, index] = argmax(s);
  const bool bounded = f.min_p > 0.0 && top > kMinusInfinity;
  search_.begin(seed, position, f.temperature, k, bounded ? top + f.temperature * reproducible::log(f.min_p) : kMinusInfinity);
  const int64_t all = static_cast<int64_t>(s.count), first = static_cast<int64_t>(index) / 64 * 64,
                after = std::min(first + 64, all);
  search_.add(s, first, after);  // the group of the largest logit first: it raises the threshold most
  search_.add(s, 0, first);
  search_.add(s, after, all);
  return search_.best();
}

std::vector<std::pair<int32_t, float>> likeliest(const Scores& s, size_t count) {
  const DefaultFloatEnvironment environment;
  std::vector<std::pair<int32_t, float>> found;
  const std::vector<uint32_t> best = largest(s, count);
  if (best.empty() || !std::isfinite(s.logits[best.front()])) return found;
  const double top = s.logits[best.front()];
  const double total = softmax_denominator(s, top, 1.0);
  for (uint32_t i : best) found.emplace_back(s.token(i), static_cast<float>(reproducible::exp(s.logits[i] - top) / total));
  return found;
}

double logsumexp(const Scores& s) {
  const DefaultFloatEnvironment environment;
  const float top = argmax(s).first;
  return std::isfinite(top) ? top + reproducible::log(softmax_denominator(s, top, 1.0)) : top;
}

}  // namespace outrider
