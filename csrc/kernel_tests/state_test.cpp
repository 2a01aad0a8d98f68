// The cache's bookkeeping, the threads, and keyed sampling.
#include <atomic>
#include <cmath>
#include <stdexcept>

#include "../kv_cache.h"
#include "../sampling.h"
#include "../threads.h"
#include "check.h"

using namespace outrider;

template <class Fn> static bool throws(Fn fn) {
  try {
    fn();
  } catch (const std::invalid_argument&) {
    return true;
  }
  return false;
}

void test_kv_cache() {
  const KernelTable& k = *all_kernels()[0];
  constexpr int kDim = 16, kWindow = 8, kRows = 10;
  Random random(4);
  KvCache cache({{1, kDim, kWindow}, {1, kDim, 0}}, 300, kRows, false);
  std::vector<float> truth;  // what each committed position holds
  float next = 1.0f;
  for (int round = 0; round < 40; ++round) {
    const int rows = 1 + random.below(kRows);
    if (cache.length() + rows > 290) break;
    cache.stage(rows);
    std::vector<float> staged;
    for (int i = 0; i < rows; ++i) {
      std::vector<float> row(kDim, next);
      staged.push_back(next++);
      for (int layer = 0; layer < 2; ++layer)
        k.store_kv(row.data(), row.data(), kDim, (cache.length() + i) % cache.capacity(layer), false, cache.keys(layer, 0), cache.values(layer, 0));
    }
    std::vector<int32_t> path;
    for (int i = 0; i < rows; ++i)
      if (random.below(2)) path.push_back(i), truth.push_back(staged[i]);
    cache.commit(path);
    CHECK(cache.length() == static_cast<int64_t>(truth.size()), "round %d", round);
    for (int layer = 0; layer < 2; ++layer)
      for (int64_t p = layer == 0 ? std::max<int64_t>(0, cache.length() - kWindow + 1) : 0; p < cache.length(); ++p) {
        const int64_t slot = p % cache.capacity(layer);
        CHECK(static_cast<float*>(cache.values(layer, 0))[slot * kDim + 3] == truth[p], "layer %d position %d", layer, static_cast<int>(p));
        CHECK(static_cast<float*>(cache.keys(layer, 0))[(slot / 16 * kDim + 3) * 16 + slot % 16] == truth[p], "layer %d", layer);
      }
  }
  CHECK(cache.earliest() > 0, "the ring wrapped");
  CHECK(throws([&] { cache.truncate(1); }) && throws([&] { cache.truncate(cache.length() + 1); }), "truncate");
  cache.truncate(cache.earliest());
  cache.truncate(0);
  CHECK(cache.length() == 0 && cache.earliest() == 0, "empty again");
  CHECK(throws([&] { cache.stage(kRows + 1); }), "more rows than a pass may stage");
  cache.stage(3);
  CHECK(throws([&] { cache.commit({0, 3}); }) && throws([&] { cache.commit({1, 1}); }) && throws([&] { cache.commit({-1}); }), "paths");
  cache.commit({});
  CHECK(cache.length() == 0, "nothing committed");
}

void test_threads() {
  for (int threads = 1; threads <= 4; ++threads) {
    ThreadPool pool(threads);
    std::vector<std::atomic<int>> seen(1000);
    for (int round = 0; round < 50; ++round) {
      pool.share(seen.size(), 7, [&](size_t begin, size_t end) {
        for (size_t i = begin; i < end; ++i) ++seen[i];
      });
      std::atomic<int> before{0};
      pool.run([&](int) {
        ++before;
        pool.barrier();
        CHECK(before == threads, "a barrier lets nobody through early");
        pool.barrier();
      });
    }
    for (const auto& s : seen) CHECK(s == 50, "%d threads", threads);
  }
}

void test_sampling() {
  Random random(8);
  Sampler sampler;
  for (int round = 0; round < 200; ++round) {
    const std::vector<float> logits = random.values(300, 6.0f);
    const SamplingFilter f{0.3 + random.below(20) * 0.1, random.below(3) * 20, random.below(2) ? 1.0 : 0.7, random.below(2) ? 0.0 : 0.1};
    const uint64_t seed = random.bits(), position = random.bits();
    const std::vector<int32_t> kept = sampler.kept(logits.data(), logits.size(), f);
    int32_t best = kept[0];
    for (int32_t t : kept)
      if (logits[t] / f.temperature + gumbel_noise(seed, position, t) > logits[best] / f.temperature + gumbel_noise(seed, position, best)) best = t;
    CHECK(sampler.sample(logits.data(), logits.size(), f, seed, position) == best, "round %d", round);
    for (size_t i = 1; i < kept.size(); ++i) CHECK(logits[kept[i]] <= logits[kept[i - 1]], "likeliest first");
  }
}
