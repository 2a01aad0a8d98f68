// KvCache against a naive model that records the last write to every slot.
#include "cache/kv_cache.h"

#include <map>
#include <stdexcept>

#include "check.h"

namespace outrider::test {
namespace {

constexpr int kHeadDim = 16;
constexpr KvFormat kAllFormats[] = {KvFormat::kFloat32, KvFormat::kFloat16, KvFormat::kInt8};

// A row's content, different for each row ever staged.
std::vector<float> content(int number, int layer, int head, bool value) {
  std::vector<float> x(kHeadDim);
  for (int d = 0; d < kHeadDim; ++d)
    x[d] = static_cast<float>((number * 7 + layer * 3 + head * 5 + d * 11 + (value ? 1 : 0)) % 127);  // exact in all formats
  x[number % kHeadDim] = 127.0f * static_cast<float>(1 << number % 3);  // so that the scale is 1, 2 or 4
  for (int d = 0; d < kHeadDim; ++d) x[d] -= std::fmod(x[d], static_cast<float>(1 << number % 3)) * (d != number % kHeadDim);
  return x;
}

struct Model {
  KvCache& cache;
  std::vector<int> rows;  // by position: the number of its row
  std::vector<int> staged;
  std::vector<std::map<int64_t, int64_t>> position_in_slot;  // by layer and slot: the position written last
  int next_row = 1;

  explicit Model(KvCache& c) : cache(c), position_in_slot(c.layers()) {}

  void stage(int count) {
    cache.stage(count);
    staged.clear();
    for (int i = 0; i < count; ++i) {
      staged.push_back(next_row++);
      const int64_t position = static_cast<int64_t>(rows.size()) + i;
      for (int l = 0; l < cache.layers(); ++l) {
        position_in_slot[l][position % cache.capacity(l)] = position;
        for (int h = 0; h < cache.shape(l).kv_heads; ++h)
          portable().store_kv(content(staged[i], l, h, false).data(), content(staged[i], l, h, true).data(), kHeadDim, 0, kHeadDim,
                              position % cache.capacity(l), cache.head(l, h));
      }
    }
  }
  void commit(const std::vector<int32_t>& path) {
    cache.commit(path);
    for (int32_t p : path) rows.push_back(staged[p]);
    staged.clear();
  }
  void truncate(int64_t length) {
    cache.truncate(length);
    rows.resize(static_cast<size_t>(length));
    staged.clear();
  }
  // Whether every position that the next pass would attend to after truncate(length) is still in its slot.
  bool survives(int64_t length) const {
    for (int l = 0; l < cache.layers(); ++l) {
      const int window = cache.shape(l).window;
      for (int64_t p = window ? std::max<int64_t>(0, length - window + 1) : 0; p < length; ++p)
        if (position_in_slot[l].at(p % cache.capacity(l)) != p) return false;
    }
    return true;
  }
  bool holds() const {
    if (cache.length() != static_cast<int64_t>(rows.size())) return false;
    for (int l = 0; l < cache.layers(); ++l) {
      const int window = cache.shape(l).window;
      const int64_t length = cache.length();
      for (int64_t p = window ? std::max<int64_t>(0, length - window + 1) : 0; p < length; ++p)
        for (int h = 0; h < cache.shape(l).kv_heads; ++h) {
          const std::vector<float> key = content(rows[p], l, h, false), value = content(rows[p], l, h, true);
          std::vector<float> keys(cache.shape(l).kv_heads * kHeadDim), values(keys.size());
          cache.read(l, p, keys.data(), values.data());
          for (int d = 0; d < kHeadDim; ++d)
            if (keys[h * kHeadDim + d] != key[d] || values[h * kHeadDim + d] != value[d]) return false;
        }
    }
    return true;
  }
};

void random_walk(KvFormat format, uint64_t seed) {
  Random random(seed);
  const int max_rows = 9;
  const int64_t most = 700;
  KvCache cache({{1, kHeadDim, 0}, {2, kHeadDim, 24}, {1, kHeadDim, 2}, {2, kHeadDim, 100}}, most, max_rows, format);
  Model model(cache);
  bool held = true, earliest = true, refused = true;
  for (int step = 0; step < 500; ++step) {
    const int64_t length = cache.length();
    const int what = random.below(20);
    if (what < 16) {
      const int count = 1 + random.below(max_rows);
      if (length + count > most) {
        bool thrown = false;
        try {
          cache.stage(count);
        } catch (const std::invalid_argument&) { thrown = true; }
        refused &= thrown && cache.length() == length;
        model.truncate(random.coin() ? 0 : length - random.below(10));
        continue;
      }
      model.stage(count);
      std::vector<int32_t> path;
      for (int r = 0; r < count; ++r)
        if (random.below(3) != 0) path.push_back(r);
      if (what < 15) model.commit(path);  // otherwise the pass is discarded
    } else {
      int64_t least = cache.earliest();
      if (least > length) earliest = false;
      for (int64_t n = 1; n <= length; ++n) earliest &= (n >= least) == model.survives(n);
      if (least > 1) {
        bool thrown = false;
        try {
          cache.truncate(least - 1);
        } catch (const std::invalid_argument&) { thrown = true; }
        refused &= thrown && cache.length() == length;
      }
      if (what == 19) model.truncate(0);
      else if (length > 0) model.truncate(std::max<int64_t>(least, length - random.below(40)));
    }
    if (step % 3 == 0) held &= model.holds();
  }
  held &= model.holds();
  CHECK(held, note("walk", "format", static_cast<int>(format), "seed", seed));
  CHECK(earliest, note("earliest() is exact", "format", static_cast<int>(format), "seed", seed));
  CHECK(refused, note("refusals change nothing", "format", static_cast<int>(format), "seed", seed));
}

void refusals() {
  KvCache cache({{1, kHeadDim, 8}, {1, kHeadDim, 0}}, 50, 4, KvFormat::kFloat16);
  CHECK(cache.length() == 0 && cache.max_positions() == 50 && cache.layers() == 2, "");
  CHECK(cache.capacity(0) == 48 && cache.capacity(1) == 64, "");  // 8 + 4 + 32 and 50, in whole blocks
  CHECK_THROWS(std::invalid_argument, cache.stage(5), "more rows than a pass has");
  CHECK_THROWS(std::invalid_argument, cache.commit({0}), "nothing is staged");
  CHECK_THROWS(std::invalid_argument, cache.truncate(1), "longer than the sequence");
  CHECK_THROWS(std::invalid_argument, cache.truncate(-1), "negative");
  cache.stage(4);
  CHECK_THROWS(std::invalid_argument, cache.commit({4}), "not staged");
  CHECK_THROWS(std::invalid_argument, cache.commit({-1}), "negative");
  CHECK_THROWS(std::invalid_argument, cache.commit({1, 1}), "twice");
  CHECK_THROWS(std::invalid_argument, cache.commit({2, 1}), "descending");
  CHECK(cache.length() == 0, "refused commits change nothing");
  cache.commit({0, 2});
  CHECK(cache.length() == 2, "");
  CHECK_THROWS(std::invalid_argument, cache.commit({0}), "committed already");
  for (int i = 0; i < 12; ++i) cache.stage(4), cache.commit({0, 1, 2, 3});
  CHECK(cache.length() == 50, "");
  CHECK_THROWS(std::invalid_argument, cache.stage(1), "no room");
  cache.stage(0);
  cache.commit({});
  CHECK(cache.length() == 50 && cache.earliest() == 9, note("", "earliest", cache.earliest()));
  CHECK_THROWS(std::invalid_argument, cache.truncate(8), "overwritten");
  cache.truncate(9);
  CHECK(cache.length() == 9 && cache.earliest() == 9, "");
  cache.truncate(0);
  CHECK(cache.length() == 0 && cache.earliest() == 0, "");
}

// The memory of heads and layers does not overlap, and all of it is accessible.
void memory() {
  for (KvFormat format : kAllFormats) {
    KvCache cache({{3, 48, 0}, {1, 32, 5}}, 33, 2, format);
    std::vector<std::pair<uint8_t*, size_t>> parts;
    for (int l = 0; l < cache.layers(); ++l)
      for (int h = 0; h < cache.shape(l).kv_heads; ++h) {
        const KvHead head = cache.head(l, h);
        const size_t slots = static_cast<size_t>(cache.capacity(l));
        for (void* p : {head.keys, head.values})
          parts.push_back({static_cast<uint8_t*>(p), slots * cache.shape(l).head_dim * element_bytes(format)});
        for (float* p : {head.key_scales, head.value_scales})
          if (p) parts.push_back({reinterpret_cast<uint8_t*>(p), slots * sizeof(float)});
      }
    size_t total = 0;
    for (size_t i = 0; i < parts.size(); ++i)
      std::memset(parts[i].first, static_cast<int>(i + 1), parts[i].second), total += parts[i].second;
    bool apart = total <= cache.reserved_bytes();
    for (size_t i = 0; i < parts.size(); ++i)
      for (size_t b = 0; b < parts[i].second; ++b) apart &= parts[i].first[b] == i + 1;
    CHECK(apart, note("memory", "format", static_cast<int>(format)));
  }
}

}  // namespace

void test_kv_cache() {
  for (KvFormat format : kAllFormats)
    for (uint64_t seed : {7, 8, 9}) random_walk(format, seed);
  refusals();
  memory();
}

}  // namespace outrider::test
