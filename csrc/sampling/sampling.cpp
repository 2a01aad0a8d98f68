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

void random_words(uint64_t seed, uint64_t position, uint32_t number, uint32_t purpose, uint32_t words[4]) {
  const uint32_t counter[4] = {number, purpose, static_cast<uint32_t>(position), static_cast<uint32_t>(position >> 32)};
  const uint32_t key[2] = {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)};
  philox4x32(counter, key, words);
}

// An exponential variable: -log(u), u uniform on the midpoints of 2^32 equal parts of (0, 1).
double exponential(uint32_t word) { return -reproducible::log((word + 0.5) * 0x1p-32); }

Leader leader_of(uint64_t seed, uint64_t position, uint32_t group) {
  uint32_t words[4];
  random_words(seed, position, group, kOfLeaders, words);
  const double least = exponential(words[0]) / kNoiseGroup;
  return {group, group * kNoiseGroup + words[1] % kNoiseGroup, least, -reproducible::log(least)};
}

// The noise of a token of the leader's group.
double noise_beside(const Leader& leader, uint64_t seed, uint64_t position, uint32_t token) {
  if (token == leader.token) return leader.noise;
  uint32_t words[4];
  random_words(seed, position, token / 4, kOfTokens, words);
  return -reproducible::log(leader.least + exponential(words[token % 4]));
}

// No noise is larger than this: that of a leader whose word is the last of the 2^32.
const double kLargestNoise = -reproducible::log(exponential(0xFFFFFFFFu) / kNoiseGroup) + 1e-9;

// A token this far below the best (in units of the temperature) is so unlikely that it cannot change a sum in double.
constexpr double kNegligible = -60.0;

constexpr float kNothing = -std::numeric_limits<float>::infinity();  // the logit of a token that cannot be chosen

// Calls visit(index) for all scores above the limit, in order; visit() may raise it. Made for many scores of which few
// are above.
template <class Visit> void for_each_above(const Scores& s, const float& limit, const Visit& visit) {
  const auto end = static_cast<int64_t>(s.count);
  for (int64_t group = 0; (group = active_kernels().next_above(s.logits, group, end, limit)) < end; group += 16)
    for (int64_t i = group; i < std::min(group + 16, end); ++i)
      if (s.logits[i] > limit) visit(static_cast<uint32_t>(i));
}

// The largest logit, and the index of the first that has it; -infinity and 0 if there is nothing above that.
std::pair<float, size_t> largest(const Scores& s) {
  std::pair<float, size_t> best{kNothing, 0};
  for_each_above(s, best.first, [&](uint32_t i) { best = {s.logits[i], i}; });
  return best;
}

// A float below x by more than rounding can account for; -infinity where there is none.
float below(double x) {
  const auto y = static_cast<float>(x - 1e-5 * std::abs(x) - std::numeric_limits<float>::min());
  return std::isfinite(y) ? y : kNothing;
}

// Sum of e^((logit - top) / temperature) over all scores.
double total_weight(const Scores& s, double top, double temperature) {
  return active_kernels().sum_exp(s.logits, static_cast<int64_t>(s.count), static_cast<float>(top),
                                  static_cast<float>(1.0 / temperature));
}

// Orders indices: likelier first, equal logits by token.
struct Likelier {
  const Scores& s;
  bool operator()(uint32_t a, uint32_t b) const {
    return s.logits[a] > s.logits[b] || (s.logits[a] == s.logits[b] && s.token(a) < s.token(b));
  }
};

// Indices of the `count` likeliest scores above -infinity, likeliest first.
std::vector<uint32_t> best_of(const Scores& s, size_t count) {
  const Likelier likelier{s};
  std::vector<uint32_t> best;  // a heap once it is full, the least likely in front
  float limit = kNothing;
  if (count == 0) return best;
  for_each_above(s, limit, [&](uint32_t i) {
    if (best.size() == count) {
      if (!likelier(i, best.front())) return;
      std::pop_heap(best.begin(), best.end(), likelier);
      best.pop_back();
    }
    best.push_back(i);
    std::push_heap(best.begin(), best.end(), likelier);
    if (best.size() == count)
      limit = std::nextafter(s.logits[best.front()], kNothing);  // an equal logit may come first by its token
  });
  std::sort_heap(best.begin(), best.end(), likelier);
  return best;
}

// Brings the smallest beginning of `items` (by `before`) whose `weight`s reach `wanted` to the front, and returns its
// length. Sorts only as many as that needs: rounds of fourfold size.
template <class Item, class Before, class Weight>
size_t reach(std::vector<Item>& items, double wanted, const Before& before, const Weight& weight) {
  double mass = 0.0;
  size_t sorted = 0;
  while (sorted < items.size()) {
    const size_t upto = std::min(items.size(), std::max<size_t>(64, sorted * 4));
    std::partial_sort(items.begin() + sorted, items.begin() + upto, items.end(), before);
    for (; sorted < upto; ++sorted) {
      mass += weight(items[sorted]);
      if (mass >= wanted) return sorted + 1;
    }
  }
  return items.size();
}

}  // namespace

void Sampler::rank(const Scores& s, const SamplingFilter& f) {
  const Likelier likelier{s};
  ranked_.clear();
  const double top = largest(s).first;
  const auto weight = [&](uint32_t i) { return reproducible::exp((s.logits[i] - top) / f.temperature); };
  double total = 0.0;
  if (f.top_k > 0 && static_cast<size_t>(f.top_k) < s.count) {
    ranked_ = best_of(s, static_cast<size_t>(f.top_k));
    std::sort(ranked_.begin(), ranked_.end());  // sums run in the order of the tokens
    for (uint32_t i : ranked_) total += weight(i);
  } else {
    // Tokens so unlikely that all of them together would weigh less than top_p leaves out cannot be among those kept.
    total = total_weight(s, top, f.temperature);
    const double negligible = f.top_p < 1.0 ? 0.99 * (1.0 - f.top_p) * total / static_cast<double>(s.count) : 0.0;
    const double least = std::isfinite(total) ? top + f.temperature * reproducible::log(negligible) : top;
    for_each_above(s, below(least), [&](uint32_t i) {
      if (s.logits[i] >= least) ranked_.push_back(i);
    });
  }
  if (f.top_p < 1.0) ranked_.resize(reach(ranked_, f.top_p * total, likelier, weight));
  if (f.min_p > 0.0) {
    const double least = top + f.temperature * reproducible::log(f.min_p);
    std::erase_if(ranked_, [&](uint32_t i) { return s.logits[i] < least; });
  }
  if (f.typical_p < 1.0) keep_typical(s, f, top);
}

// Locally typical sampling (Meister et al. 2023): the tokens whose surprise -log p lies nearest to the entropy, until
// their probability reaches typical_p.
void Sampler::keep_typical(const Scores& s, const SamplingFilter& f, double top) {
  std::sort(ranked_.begin(), ranked_.end());
  double total = 0.0, weighted = 0.0;
  for (uint32_t i : ranked_) {
    const double x = (s.logits[i] - top) / f.temperature;
    if (x <= kNegligible) continue;
    total += reproducible::exp(x);
    weighted += x * reproducible::exp(x);
  }
  const double log_total = reproducible::log(total), entropy = log_total - weighted / total;
  surprises_.clear();
  for (uint32_t i : ranked_) surprises_.emplace_back(std::abs(log_total - (s.logits[i] - top) / f.temperature - entropy), i);
  const auto nearer = [&](const auto& a, const auto& b) {
    return a.first < b.first || (a.first == b.first && s.token(a.second) < s.token(b.second));
  };
  const auto weight = [&](const auto& a) { return reproducible::exp((s.logits[a.second] - top) / f.temperature); };
  surprises_.resize(reach(surprises_, f.typical_p * total, nearer, weight));
  ranked_.clear();
  for (const auto& [surprise, i] : surprises_) ranked_.push_back(i);
}

double gumbel_noise(uint64_t seed, uint64_t position, uint32_t token) {
  return noise_beside(leader_of(seed, position, token / kNoiseGroup), seed, position, token);
}

std::vector<int32_t> Sampler::kept(const Scores& s, const SamplingFilter& f) {
  const DefaultFloatEnvironment environment;
  rank(s, f);
  std::sort(ranked_.begin(), ranked_.end(), Likelier{s});
  std::vector<int32_t> tokens;
  for (uint32_t i : ranked_) tokens.push_back(s.token(i));
  return tokens;
}

void Contest::begin(uint64_t seed, uint64_t position, double temperature, size_t count, double least) {
  temperature_ = temperature;
  count_ = count;
  least_ = least;
  least_value_ = -std::numeric_limits<double>::infinity();
  race_ = Race{seed, position, static_cast<float>(temperature), kNothing, below(least)};
  leader_ = leader_of(seed, position, 0);
  foremost_.clear();
}

void Contest::join(const Scores& s, int64_t begin, int64_t end) {
  const KernelTable& kernels = active_kernels();
  const int64_t group = s.tokens ? 16 : kNoiseGroup;
  for (int64_t at = begin; at < end; at += group) {
    at = s.tokens ? kernels.next_named_group(s.logits, s.tokens, at, end, race_) : kernels.next_group(s.logits, at, end, race_);
    for (int64_t i = at; i < std::min(at + group, end); ++i) join(s.token(static_cast<size_t>(i)), s.logits[i]);
  }
}

void Contest::join(int32_t token, float logit) {
  if (!(logit > race_.least && logit >= least_)) return;
  const auto name = static_cast<uint32_t>(token);
  if (leader_.group != name / kNoiseGroup) leader_ = leader_of(race_.seed, race_.position, name / kNoiseGroup);
  const double value = logit / temperature_;
  if (!(value + leader_.noise >= least_value_)) return;  // the token's own noise is that large at most
  const Contender contender{token, value + noise_beside(leader_, race_.seed, race_.position, name)};
  if (foremost_.size() == count_) {
    if (!before(contender, foremost_.back())) return;
    foremost_.pop_back();
  }
  foremost_.insert(std::upper_bound(foremost_.begin(), foremost_.end(), contender, before), contender);
  if (foremost_.size() < count_) return;
  least_value_ = foremost_.back().value;
  race_.bound = below(least_value_ * temperature_);  // race_.temperature is rounded too: noise_bound() leaves room for it
  race_.least = std::max(race_.least, below((least_value_ - kLargestNoise) * temperature_));
}

int32_t Sampler::sample(const Scores& s, const SamplingFilter& f, uint64_t seed, uint64_t position) {
  const std::vector<Contender>& found = foremost(s, f, seed, position, 1);
  return found.empty() ? s.token(0) : found.front().token;
}

const std::vector<Contender>& Sampler::foremost(const Scores& s, const SamplingFilter& f, uint64_t seed, uint64_t position,
                                                size_t count) {
  const DefaultFloatEnvironment environment;
  if (f.temperature == 0.0 || count == 0) {
    likeliest_.clear();
    for (uint32_t i : best_of(s, count)) likeliest_.push_back({s.token(i), s.logits[i]});
    return likeliest_;
  }
  if (f.top_k > 0 || f.top_p < 1.0 || f.typical_p < 1.0) {
    contest_.begin(seed, position, f.temperature, count);
    rank(s, f);
    for (uint32_t i : ranked_) contest_.join(s.token(i), s.logits[i]);
    return contest_.foremost();
  }
  const auto [top, likeliest] = largest(s);
  const bool bounded = f.min_p > 0.0 && top > kNothing;
  contest_.begin(seed, position, f.temperature, count, bounded ? top + f.temperature * reproducible::log(f.min_p) : kNothing);
  const int64_t all = static_cast<int64_t>(s.count), first = static_cast<int64_t>(likeliest) / 64 * 64,
                after = std::min(first + 64, all);
  contest_.join(s, first, after);  // the likeliest token: it leaves the least hope to the others
  contest_.join(s, 0, first);
  contest_.join(s, after, all);
  return contest_.foremost();
}

std::vector<std::pair<int32_t, float>> likeliest(const Scores& s, size_t count) {
  const DefaultFloatEnvironment environment;
  std::vector<std::pair<int32_t, float>> found;
  const std::vector<uint32_t> best = best_of(s, count);
  if (best.empty() || !std::isfinite(s.logits[best.front()])) return found;
  const double top = s.logits[best.front()];
  const double total = total_weight(s, top, 1.0);
  for (uint32_t i : best) found.emplace_back(s.token(i), static_cast<float>(reproducible::exp(s.logits[i] - top) / total));
  return found;
}

double log_total(const Scores& s) {
  const DefaultFloatEnvironment environment;
  const float top = largest(s).first;
  return std::isfinite(top) ? top + reproducible::log(total_weight(s, top, 1.0)) : top;
}

}  // namespace outrider
