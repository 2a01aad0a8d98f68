// Philox against its published vectors, and the sampler against an argmax over all tokens that pass the filters.
#include "runtime/reproducible_math.h"
#include "sampling/sampling.h"

#include <algorithm>

#include "check.h"

namespace outrider::test {
namespace {

void test_philox() {
  const auto equals = [](std::vector<uint32_t> counter, std::vector<uint32_t> key, std::vector<uint32_t> wanted) {
    uint32_t out[4];
    philox4x32(counter.data(), key.data(), out);
    return std::equal(out, out + 4, wanted.begin());
  };
  // Known answers from the authors' Random123 library.
  CHECK(equals({0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}), "zeros");
  CHECK(equals({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}), "ones");
  CHECK(equals({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0},
               {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}),
        "pi");
  Random random(10);
  for (int i = 0; i < 100; ++i) {
    uint32_t words[6], out[4];
    for (uint32_t& w : words) w = static_cast<uint32_t>(random.next());
    philox4x32(words, words + 4, out);
    digest.add(out, 4);
  }
}

std::vector<uint32_t> naive_words(uint64_t seed, uint64_t position, uint32_t number, uint32_t stream) {
  const uint32_t counter[4] = {number, stream, static_cast<uint32_t>(position & 0xffffffffu),
                               static_cast<uint32_t>(position >> 32)};
  const uint32_t key[2] = {static_cast<uint32_t>(seed & 0xffffffffu), static_cast<uint32_t>(seed >> 32)};
  std::vector<uint32_t> words(4);
  philox4x32(counter, key, words.data());
  return words;
}

double naive_noise(uint64_t seed, uint64_t position, uint32_t token) {
  const std::vector<uint32_t> group = naive_words(seed, position, token / 64, 1);
  const double minimum = -reproducible::log((group[0] + 0.5) / 4294967296.0) / 64;
  if (group[1] % 64 == token % 64) return -reproducible::log(minimum);
  const double own = -reproducible::log((naive_words(seed, position, token / 4, 0)[token % 4] + 0.5) / 4294967296.0);
  return -reproducible::log(minimum + own);
}

void test_noise() {
  bool equal = true;
  double sum = 0, squares = 0;
  const int n = 40000;
  for (int i = 0; i < n; ++i) {
    const uint64_t seed = 0x123456789abcdefull * (i % 7), position = static_cast<uint64_t>(i % 11) << (i % 40);
    const double x = gumbel_noise(seed, position, static_cast<uint32_t>(i));
    equal &= x == naive_noise(seed, position, static_cast<uint32_t>(i));
    sum += x;
    squares += x * x;
  }
  CHECK(equal, "gumbel_noise");
  const double mean = sum / n, variance = squares / n - mean * mean;
  CHECK(std::fabs(mean - 0.5772157) < 0.03 && std::fabs(variance - 1.6449341) < 0.06, "moments of the noise");
  const double base = gumbel_noise(1, 2, 3);
  CHECK(base != gumbel_noise(2, 2, 3) && base != gumbel_noise(1, 3, 3) && base != gumbel_noise(1, 2, 4), "every argument counts");
  CHECK(base != gumbel_noise(1 + (1ull << 32), 2, 3) && base != gumbel_noise(1, 2 + (1ull << 32), 3), "all 64 bits count");
}

// Sorts all tokens, then applies one filter after another.
std::vector<int32_t> naive_kept(const std::vector<float>& logits, const SamplingFilter& f) {
  std::vector<int32_t> kept;
  for (size_t i = 0; i < logits.size(); ++i)
    if (logits[i] > -infinity()) kept.push_back(static_cast<int32_t>(i));
  std::stable_sort(kept.begin(), kept.end(), [&](int32_t a, int32_t b) { return logits[a] > logits[b]; });
  if (kept.empty()) return kept;
  const double top = logits[kept[0]];
  if (f.top_k > 0 && static_cast<size_t>(f.top_k) < kept.size()) kept.resize(f.top_k);
  const auto weight = [&](int32_t t) { return reproducible::exp((logits[t] - top) / f.temperature); };
  if (f.top_p < 1) {
    double total = 0, mass = 0;
    std::vector<int32_t> by_token = kept;
    std::sort(by_token.begin(), by_token.end());
    for (int32_t t : by_token) total += weight(t);
    size_t n = 0;
    while (n < kept.size() && !(n > 0 && mass >= f.top_p * total)) mass += weight(kept[n++]);
    kept.resize(n);
  }
  if (f.min_p > 0) std::erase_if(kept, [&](int32_t t) { return logits[t] < top + f.temperature * reproducible::log(f.min_p); });
  if (f.typical_p < 1) {
    std::vector<int32_t> by_token = kept;
    std::sort(by_token.begin(), by_token.end());
    double total = 0, weighted = 0, mass = 0;
    for (int32_t t : by_token) total += weight(t), weighted += weight(t) * ((logits[t] - top) / f.temperature);
    const double logarithm = reproducible::log(total), entropy = logarithm - weighted / total;
    const auto shift = [&](int32_t t) { return std::abs(logarithm - (logits[t] - top) / f.temperature - entropy); };
    std::stable_sort(by_token.begin(), by_token.end(), [&](int32_t a, int32_t b) { return shift(a) < shift(b); });
    std::vector<bool> typical(logits.size());
    for (size_t n = 0; n < by_token.size() && !(n > 0 && mass >= f.typical_p * total); ++n)
      mass += weight(by_token[n]), typical[by_token[n]] = true;
    std::erase_if(kept, [&](int32_t t) { return !typical[t]; });
  }
  return kept;
}

// Tokens by descending logit / temperature + noise.
std::vector<int32_t> naive_order(const std::vector<float>& logits, std::vector<int32_t> kept, double temperature, uint64_t seed,
                                 uint64_t position) {
  std::sort(kept.begin(), kept.end());
  std::vector<double> value(logits.size());
  for (int32_t t : kept) value[t] = logits[t] / temperature + naive_noise(seed, position, static_cast<uint32_t>(t));
  std::stable_sort(kept.begin(), kept.end(), [&](int32_t a, int32_t b) { return value[a] > value[b]; });
  return kept;
}

void test_settings() {
  Random random(11);
  Sampler sampler;  // shared by all calls, which must not affect each other
  for (int c = 0; c < 10; ++c) {
    const size_t sizes[] = {1, 2, 5, 63, 64, 65, 300, 700, 1000, 4000};
    const size_t count = sizes[c];
    std::vector<float> logits = random.bells(count, c % 2 ? 6.0f : 1.0f);
    for (size_t i = 0; i < count; i += 3) logits[i] = static_cast<float>(static_cast<int>(logits[i]));  // ties
    for (size_t i = 7; i < count; i += 11) logits[i] = i % 2 ? -infinity() : not_a_number();
    std::vector<int32_t> tokens(count);
    std::vector<float> reversed(count);
    for (size_t i = 0; i < count; ++i) tokens[i] = static_cast<int32_t>(count - 1 - i), reversed[i] = logits[count - 1 - i];
    bool same_kept = true, same_sample = true, same_listed = true, same_top_k = true, among_kept = true;
    for (double temperature : {0.05, 0.7, 1.0, 3.0})
      for (int64_t top_k : {0, 1, 3, 64, 100000})
        for (double top_p : {1.0, 0.99, 0.6, 0.0})
          for (double min_p : {0.0, 0.02, 0.5, 1.0}) {
            const double typical_p = random.next() % 2 ? 1.0 : 0.1 * (1 + random.next() % 9);
            const SamplingFilter f{temperature, top_k, top_p, min_p, typical_p};
            const std::vector<int32_t> kept = naive_kept(logits, f);
            same_kept &= sampler.kept({logits.data(), count}, f) == kept;
            for (uint64_t draw = 0; draw < 3; ++draw) {
              const uint64_t seed = random.next(), position = random.next() >> (draw * 30);
              const std::vector<int32_t> expected = naive_order(logits, kept, temperature, seed, position);
              const int32_t token = sampler.sample({logits.data(), count}, f, seed, position);
              same_sample &= token == (expected.empty() ? 0 : expected.front());
              const size_t k = 1 + random.next() % 5;
              const std::vector<Candidate> found = sampler.gumbel_top_k({logits.data(), count}, f, seed, position, k);
              same_top_k &= found.size() == std::min(k, expected.size()) &&
                            std::equal(found.begin(), found.end(), expected.begin(),
                                       [](const Candidate& c, int32_t t) { return c.token == t; });
              among_kept &= std::find(kept.begin(), kept.end(), token) != kept.end();
              same_sample &= token == sampler.sample({logits.data(), count}, f, seed, position);
              // The same tokens as a list in another order.
              same_listed &= token == sampler.sample({reversed.data(), count, tokens.data()}, f, seed, position) || kept.empty();
            }
          }
    CHECK(same_kept, note("kept", "count", count));
    CHECK(same_sample, note("sample", "count", count));
    CHECK(same_top_k, note("gumbel_top_k", "count", count));
    CHECK(same_listed, note("sample of listed tokens", "count", count));
    CHECK(among_kept, note("sample passes the filters", "count", count));
  }
  // No candidate, and exactly one.
  std::vector<float> none(40, -infinity());
  for (size_t i = 0; i < none.size(); i += 2) none[i] = not_a_number();
  for (int64_t top_k : {0, 3})
    for (double min_p : {0.0, 0.1}) {
      const SamplingFilter f{1.0, top_k, 1.0, min_p, 1.0};
      CHECK(sampler.sample({none.data(), none.size()}, f, 1, 2) == 0 && sampler.kept({none.data(), none.size()}, f).empty(),
            "no candidate");
      std::vector<float> one = none;
      one[17] = -1e30f;
      CHECK(sampler.sample({one.data(), one.size()}, f, 1, 2) == 17, "one candidate");
    }
}

// Without filters most tokens are pruned: on every instruction set, with logits that make pruning hard.
void test_unfiltered() {
  Random random(13);
  Sampler sampler;
  const std::string usual = active_kernels().name;
  for (const KernelTable* kernels : tables()) {
    choose_kernels(kernels->name);
    for (size_t count : {1, 3, 63, 64, 65, 127, 1000, 5003})
      for (int shape = 0; shape < 8; ++shape) {
        std::vector<float> logits = random.bells(count, shape < 2 ? 4.0f : 1.0f);
        if (shape == 1) logits[count - 1] = 25.0f;  // far above the others
        if (shape == 2) logits.assign(count, -7.25f);
        if (shape == 3) logits.assign(count, 0.0f);
        if (shape == 4) logits.assign(count, 1e30f);
        if (shape == 5)
          for (float& x : logits) x *= 1e30f;
        if (shape == 6)
          for (float& x : logits) x *= 1e-40f;
        if (shape == 7)
          for (float& x : logits) x += 30000.0f;  // where the spacing of floats is not small compared with the noise
        if (shape != 3)
          for (size_t i = 2; i < count; i += 7) logits[i] = i % 2 ? -infinity() : not_a_number();
        if (shape == 5 && count > 70) logits[70] = logits[10] = infinity();
        std::vector<int32_t> tokens(count);
        std::vector<float> reversed(count);
        for (size_t i = 0; i < count; ++i) tokens[i] = static_cast<int32_t>(count - 1 - i), reversed[i] = logits[count - 1 - i];
        bool same = true, same_listed = true;
        for (double temperature : {0.05, 0.7, 1.0, 3.0, 1e-300, 1e300, HUGE_VAL})
          for (double min_p : {0.0, 0.01}) {
            if (min_p > 0 && temperature > 1e299) continue;
            const SamplingFilter f{temperature, 0, 1.0, min_p, 1.0};
            std::vector<int32_t> kept = naive_kept(logits, f);
            const uint64_t seed = random.next(), position = random.next() >> (shape * 8);
            const bool no_nan = std::all_of(kept.begin(), kept.end(),
                                            [&](int32_t t) { return logits[t] / temperature == logits[t] / temperature; });
            if (!no_nan) continue;
            const std::vector<int32_t> expected = naive_order(logits, kept, temperature, seed, position);
            const auto is_expected = [&](const Scores& s, size_t k) {
              const std::vector<Candidate> found = sampler.gumbel_top_k(s, f, seed, position, k);
              return found.size() == std::min(k, expected.size()) &&
                     std::equal(found.begin(), found.end(), expected.begin(),
                                [](const Candidate& c, int32_t t) { return c.token == t; });
            };
            for (size_t k : {1, 4, 100}) {
              same &= is_expected({logits.data(), count}, k);
              same_listed &= is_expected({reversed.data(), count, tokens.data()}, k);
            }
          }
        CHECK(same, note(kernels->name, "count", count, "shape", shape));
        CHECK(same_listed, note(std::string(kernels->name) + " listed", "count", count, "shape", shape));
      }
  }
  choose_kernels(usual.c_str());
}

void test_likeliest() {
  Random random(12);
  for (size_t count : {1, 2, 7, 300}) {
    std::vector<float> logits = random.bells(count, 3.0f);
    for (size_t i = 0; i < count; i += 2) logits[i] = static_cast<float>(static_cast<int>(logits[i]));  // ties
    if (count > 5) logits[3] = -infinity(), logits[4] = not_a_number();
    for (size_t wanted : {1, 3, 20}) {
      const std::vector<int32_t> all = naive_kept(logits, {1.0, 0, 1.0, 0.0, 1.0});
      double total = 0;
      for (int32_t t : all) total += reproducible::exp(logits[t]);
      const auto found = likeliest({logits.data(), count}, wanted);
      bool equal = found.size() == std::min(wanted, all.size());
      for (size_t i = 0; i < found.size(); ++i)
        equal &= found[i].first == all[i] && std::fabs(found[i].second - reproducible::exp(logits[all[i]]) / total) < 1e-6;
      CHECK(equal, note("likeliest", "count", count));
      std::vector<int32_t> tokens(count);
      std::vector<float> reversed(count);
      for (size_t i = 0; i < count; ++i) tokens[i] = static_cast<int32_t>(count - 1 - i), reversed[i] = logits[count - 1 - i];
      const auto listed = likeliest({reversed.data(), count, tokens.data()}, wanted);
      const auto same_token = [](const auto& a, const auto& b) { return a.first == b.first; };
      CHECK(std::equal(listed.begin(), listed.end(), found.begin(), found.end(), same_token),
            note("likeliest of listed tokens", "count", count));
      CHECK(Sampler().sample({logits.data(), count}, {0.0, 0, 1.0, 0.0, 1.0}, 1, 2) == all[0], note("greedy", "count", count));
    }
  }
  const std::vector<float> none(5, not_a_number());
  CHECK(likeliest({none.data(), none.size()}, 3).empty(), "only NaN");
}

void test_distribution() {
  // Frequencies of 20000 draws against the probabilities themselves: within 5 standard deviations.
  Sampler sampler;
  const std::vector<float> logits = {0.0f, 1.0f, -1.0f, 2.0f, 0.5f};
  for (double temperature : {0.5, 1.0, 2.0}) {
    double total = 0;
    for (float l : logits) total += reproducible::exp(l / temperature);
    std::vector<int> seen(logits.size(), 0);
    const int draws = 20000;
    for (int i = 0; i < draws; ++i) ++seen[sampler.sample({logits.data(), logits.size()}, {temperature, 0, 1.0, 0.0, 1.0}, 99, i)];
    for (size_t t = 0; t < logits.size(); ++t) {
      const double p = reproducible::exp(logits[t] / temperature) / total;
      CHECK(std::fabs(seen[t] - draws * p) < 5 * std::sqrt(draws * p * (1 - p)) + 1, note("frequency", "token", t));
    }
  }
}

}  // namespace

void test_sampling() {
  test_philox();
  test_noise();
  test_settings();
  test_unfiltered();
  test_likeliest();
  test_distribution();
}

}  // namespace outrider::test
