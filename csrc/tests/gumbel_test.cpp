// The pruning kernels of Gumbel top-k: the vectorized generator against the scalar one, the bound on the noise against the
// noise, and the search for candidates against an exhaustive one.
#include <algorithm>
#include <limits>

#include "sampling/sampling.h"
#include "check.h"

// The bound is not in the kernel table: this compiles it once more, for the portable vector operations.
#define OUTRIDER_ISA gumbel_test
#include "simd/portable.h"
#include "kernels/gumbel.h"

namespace outrider::test {
namespace {

// The maximum noise of a group whose first word is this.
double noise_of(uint32_t word) { return std::log(64.0) - std::log(-std::log((word + 0.5) / 4294967296.0)); }

uint32_t naive_word(const GumbelSearch& search, uint32_t token) {
  const uint32_t counter[4] = {token / 64, 1, static_cast<uint32_t>(search.position & 0xffffffffu),
                               static_cast<uint32_t>(search.position >> 32)};
  const uint32_t key[2] = {static_cast<uint32_t>(search.seed & 0xffffffffu), static_cast<uint32_t>(search.seed >> 32)};
  uint32_t words[4];
  philox4x32(counter, key, words);
  return words[0];
}

std::vector<int32_t> random_tokens(Random& random, size_t count) {
  std::vector<int32_t> tokens(count);
  for (int32_t& t : tokens) t = static_cast<int32_t>(random.next() >> (33 + random.below(20)));
  tokens[count / 2] = std::numeric_limits<int32_t>::max();
  return tokens;
}

void test_group_words(Random& random) {
  for (int draw = 0; draw < 8; ++draw) {
    // In draws 0 to 2 the seed, the position or both fit into 32 bits.
    const uint64_t seed = random.next() >> (draw % 3 == 0 && draw < 3 ? 40 : 0),
                   position = random.next() >> (draw == 1 || draw == 0 ? 40 : 0);
    const GumbelSearch search{seed, position, 1.0f, -infinity(), -infinity()};
    int32_t groups[16], words[16];
    for (int32_t& g : groups) g = static_cast<int32_t>(random.next() >> (39 + random.below(20)));
    const gumbel_test::I lanes = gumbel_test::group_word(search, gumbel_test::iload(groups));
    std::memcpy(words, lanes.v, sizeof words);
    bool equal = true;
    for (int i = 0; i < 16; ++i)
      equal &= static_cast<uint32_t>(words[i]) == naive_word(search, static_cast<uint32_t>(groups[i]) * 64);
    CHECK(equal, note("group words", "draw", draw));
    digest.add(words, 16);
  }
}

// Without thresholds every group is found.
void test_all_found(Random& random) {
  for (size_t count : {1, 16, 63, 64, 65, 130, 1000, 1024, 1025, 3000}) {
    const GumbelSearch search{random.next(), random.next(), 1.0f, -infinity(), -infinity()};
    const std::vector<float> logits(count, 0.0f);
    const std::vector<int32_t> tokens = random_tokens(random, count);
    const auto all = static_cast<int64_t>(count);
    for (const KernelTable* k : tables()) {
      bool found = k->next_candidates(logits.data(), all, all, search) == all;
      for (int64_t begin = 0; begin < all; begin += 64) found &= k->next_candidates(logits.data(), begin, all, search) == begin;
      for (int64_t begin = 0; begin < all; begin += 16)
        found &= k->next_listed_candidates(logits.data(), tokens.data(), begin, all, search) == begin;
      CHECK(found, note(std::string(k->name) + " finds all", "count", count));
    }
  }
}

float bound_of(uint32_t word) {
  float bounds[16];
  gumbel_test::store(bounds, gumbel_test::noise_bound(gumbel_test::all_lanes(word)));
  return bounds[word % 16];
}

void test_bound(Random& random) {
  std::vector<uint32_t> words;
  for (int bit = 0; bit < 32; ++bit)
    for (uint32_t near = 0; near < 200; ++near) words.push_back((1u << bit) + near - 100), words.push_back(~words.back());
  for (int i = 0; i < 20000; ++i) {
    words.push_back(static_cast<uint32_t>(random.next() >> 32));
    words.push_back(~(words.back() >> random.below(32)));
  }
  std::sort(words.begin(), words.end());
  bool above = true, close = true, monotone = true;
  for (size_t i = 0; i < words.size(); ++i) {
    const double bound = bound_of(words[i]), noise = noise_of(words[i]);
    above &= bound > noise + 0.0005 && bound > std::log(64.0);  // the margin also covers the rounding of the temperature
    close &= bound < noise + 0.13 || noise < 2 + std::log(64.0) || words[i] > 0xFFFFFFF0u;
    monotone &= i == 0 || bound >= bound_of(words[i - 1]);
  }
  CHECK(above, "the bound is above the noise");
  CHECK(close, "the bound is close to the noise");
  CHECK(monotone, "the bound does not decrease with the word");
}

// The bound derived at noise_bound, computed in double and with a margin for its approximations.
double loose_bound(uint32_t word) { return std::log(64.0) - std::log((~word | 1u) * 0.5 * 0x1p-32) + 0.07; }

void test_search(Random& random) {
  size_t groups = 0, pruned = 0;
  for (size_t count : {1, 64, 100, 1000, 5003})
    for (float temperature : {0.05f, 1.0f, 3.0f})
      for (float spread : {0.0f, 1.0f, 5.0f})
        for (float noise : {0.0f, 5.0f, 7.0f, 10.0f}) {  // that a token with a large logit needs to become a candidate
          std::vector<float> logits = random.bells(count, spread);
          for (size_t i = 3; i < count; i += 9) logits[i] = i % 2 ? -infinity() : not_a_number();
          for (size_t i = 128; i < std::min<size_t>(count, 256); ++i)
            logits[i] = i % 3 ? -infinity() : not_a_number();  // whole groups
          const std::vector<int32_t> tokens = random_tokens(random, count);
          const GumbelSearch search{random.next(), random.next(), temperature, 2 * spread + noise * temperature,
                                    random.coin() ? -infinity() : -spread};
          for (bool listed : {false, true}) {
            const auto token = [&](size_t i) { return listed ? static_cast<uint32_t>(tokens[i]) : static_cast<uint32_t>(i); };
            const auto all = static_cast<int64_t>(count), group = int64_t{listed ? 16 : 64};
            std::vector<int64_t> definition;
            for (const KernelTable* k : tables()) {
              std::vector<int64_t> found;
              for (int64_t at = 0; at < all; at += group) {
                at = listed ? k->next_listed_candidates(logits.data(), tokens.data(), at, all, search)
                            : k->next_candidates(logits.data(), at, all, search);
                if (at < all) found.push_back(at);
                else CHECK(at == all, k->name);
              }
              if (k == &portable()) definition = found;
              CHECK(found == definition, note(k->name, "search of", count, "listed", listed));
            }
            digest.add(definition);
            groups += static_cast<size_t>((all + group - 1) / group),
                pruned += static_cast<size_t>((all + group - 1) / group) - definition.size();
            bool complete = true, strict = true;
            for (int64_t begin = 0; begin < all; begin += group) {
              const bool found = std::find(definition.begin(), definition.end(), begin) != definition.end();
              bool possible = false;
              float largest = -infinity();
              for (int64_t i = begin; i < std::min(begin + group, all); ++i) largest = logits[i] > largest ? logits[i] : largest;
              for (int64_t i = begin; i < std::min(begin + group, all); ++i) {
                const double noise = gumbel_noise(search.seed, search.position, token(i));
                complete &= found || !(logits[i] > search.min_logit && logits[i] + double{temperature} * noise > search.min_sum);
                const double bound = temperature * loose_bound(naive_word(search, token(i)));
                possible |= (listed ? logits[i] : largest) + bound > search.min_sum && largest > search.min_logit;
              }
              strict &= !found || possible;
            }
            CHECK(complete, note("every candidate is found", "count", count, "listed", listed));
            CHECK(strict, note("groups without a possible candidate are pruned", "count", count, "listed", listed));
          }
        }
  CHECK(pruned > groups / 4 && pruned < groups * 3 / 4, note("search", "groups", groups, "pruned", pruned));
}

void test_above(Random& random) {
  for (int64_t count : {1, 15, 16, 17, 100}) {
    std::vector<float> x = random.bells(count, 1.0f);
    for (int64_t i = 2; i < count; i += 5) x[i] = i % 2 ? not_a_number() : -infinity();
    for (float limit : {-infinity(), -1.0f, x[count / 2], 2.0f, infinity()})
      for (int64_t begin : {int64_t{0}, int64_t{16}, count})
        for (const KernelTable* k : tables()) {
          if (begin > count) continue;
          int64_t wanted = count;
          for (int64_t i = count - 1; i >= begin; --i)
            if (x[i] > limit) wanted = begin + (i - begin) / 16 * 16;
          CHECK(k->next_above(x.data(), begin, count, limit) == wanted, note(k->name, "count", count, "begin", begin));
        }
  }
}

}  // namespace

void test_gumbel() {
  Random random(21);
  test_group_words(random);
  test_all_found(random);
  test_bound(random);
  test_search(random);
  test_above(random);
}

}  // namespace outrider::test
