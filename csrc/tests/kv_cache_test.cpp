// KvCache against a naive model that records the last write to every slot.
#include "cache/kv_cache.h"

#include <cstring>
#include <memory>
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

std::shared_ptr<KvPages> new_pages(std::vector<KvShape> shapes, KvFormat format) {
  return std::make_shared<KvPages>(std::move(shapes), format);
}

// A cache and, by position, the number of the row that it should hold.
struct Model {
  KvCache cache;
  std::vector<int> rows;
  std::vector<int> staged;

  explicit Model(std::shared_ptr<KvPages> pages, int64_t most, int max_rows) : cache(std::move(pages), most, max_rows) {}

  void stage(int count, int& next_row) {
    cache.stage(count);
    staged.clear();
    for (int i = 0; i < count; ++i) {
      staged.push_back(next_row++);
      const int64_t position = static_cast<int64_t>(rows.size()) + i;
      for (int l = 0; l < cache.pages().layers(); ++l)
        for (int h = 0; h < cache.pages().shape(l).kv_heads; ++h)
          portable().store_kv(content(staged[i], l, h, false).data(), content(staged[i], l, h, true).data(), 0, kHeadDim, position,
                              cache.head(l, h));
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
  }
  // Releases every page that the next position does not need.
  void drop_unneeded() {
    for (int g = 0; g < cache.pages().groups(); ++g)
      for (int64_t i = 0; (i + 1) * kPagePositions <= cache.first_needed(g, cache.length()); ++i) cache.drop(g, i);
  }
  std::vector<KvCache::Pages> held() const {
    std::vector<KvCache::Pages> groups;
    for (int g = 0; g < cache.pages().groups(); ++g) {
      groups.emplace_back();
      for (int64_t i = 0; i * kPagePositions < cache.max_positions(); ++i) groups.back().push_back(cache.page(g, i));
    }
    return groups;
  }
  bool holds() const {
    const int64_t length = cache.length();
    if (length != static_cast<int64_t>(rows.size())) return false;
    for (int l = 0; l < cache.pages().layers(); ++l)
      for (int64_t p = cache.first_needed(cache.pages().group(l), length); p < length; ++p) {
        const int heads = cache.pages().shape(l).kv_heads;
        std::vector<float> keys(heads * kHeadDim), values(keys.size());
        cache.read(l, p, keys.data(), values.data());
        for (int h = 0; h < heads; ++h) {
          const std::vector<float> key = content(rows[p], l, h, false), value = content(rows[p], l, h, true);
          for (int d = 0; d < kHeadDim; ++d)
            if (keys[h * kHeadDim + d] != key[d] || values[h * kHeadDim + d] != value[d]) return false;
        }
      }
    return true;
  }
};

// Sequences that stage, commit, shorten themselves and continue each other's beginnings: none changes what another holds.
void random_walk(KvFormat format, uint64_t seed) {
  Random random(seed);
  const int max_rows = 9;
  const int64_t most = 700;
  const auto pages =
      new_pages({{1, kHeadDim, 0}, {2, kHeadDim, 24}, {1, kHeadDim, 2}, {2, kHeadDim, 200}, {1, kHeadDim, 24}}, format);
  std::vector<std::unique_ptr<Model>> models;
  int next_row = 1;
  bool held = true, refused = true;
  for (int step = 0; step < 1500; ++step) {
    const int what = random.below(40);
    if (models.size() < 4) models.push_back(std::make_unique<Model>(pages, most, max_rows));
    const size_t chosen = random.below(static_cast<int>(models.size()));
    Model& model = *models[chosen];
    const int64_t length = model.cache.length();
    if (what < 32) {
      const int count = 1 + random.below(max_rows);
      if (length + count > most) {
        bool thrown = false;
        try {
          model.cache.stage(count);
        } catch (const std::invalid_argument&) { thrown = true; }
        refused &= thrown && model.cache.length() == length;
        model.truncate(0);
        continue;
      }
      model.stage(count, next_row);
      std::vector<int32_t> path;
      for (int r = 0; r < count; ++r)
        if (random.below(3) != 0) path.push_back(r);
      if (what < 30) model.commit(path);  // otherwise the pass is discarded
      if (random.coin()) model.drop_unneeded();
    } else if (what < 36) {
      const int64_t to = length == 0 ? 0 : length - random.below(static_cast<int>(std::min<int64_t>(length, 200)));
      try {
        model.truncate(to);
      } catch (const std::invalid_argument&) { refused &= model.cache.length() == length; }
    } else if (what < 39 && length > 0) {
      auto next = std::make_unique<Model>(pages, most, max_rows);
      const int64_t shared = length - random.below(static_cast<int>(std::min<int64_t>(length, 150)));
      try {
        next->cache.resume(model.held(), shared);
        next->rows.assign(model.rows.begin(), model.rows.begin() + shared);
      } catch (const std::invalid_argument&) { refused &= next->cache.length() == 0 && shared < length; }
      models[random.below(static_cast<int>(models.size()))] = std::move(next);
    } else {
      models.erase(models.begin() + static_cast<int64_t>(chosen));
    }
    if (step % 3 == 0)
      for (const auto& m : models) held &= m->holds();
  }
  for (const auto& m : models) held &= m->holds();
  CHECK(held, note("walk", "format", static_cast<int>(format), "seed", seed));
  CHECK(refused, note("refusals change nothing", "format", static_cast<int>(format), "seed", seed));
  models.clear();
  CHECK(pages->bytes_in_use() == 0, "all pages are free");
}

void refusals() {
  KvCache cache(new_pages({{1, kHeadDim, 200}, {1, kHeadDim, 0}}, KvFormat::kFloat16), 500, 4);
  CHECK(cache.length() == 0 && cache.max_positions() == 500 && cache.pages().layers() == 2 && cache.pages().groups() == 2, "");
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
  for (int i = 0; i < 125; ++i) cache.stage(4), cache.commit({0, 1, 2, 3});
  CHECK(cache.length() == 500, "");
  CHECK_THROWS(std::invalid_argument, cache.stage(1), "no room");
  CHECK_THROWS(std::invalid_argument, cache.drop(1, 0), "full attention needs all");
  CHECK_THROWS(std::invalid_argument, cache.drop(0, 2), "position 300 is needed");
  CHECK_THROWS(std::invalid_argument, cache.drop(2, 0), "no such group");
  CHECK_THROWS(std::invalid_argument, cache.page(0, 4), "beyond the end");
  cache.drop(0, 0);
  cache.drop(0, 1);
  CHECK(!cache.page(0, 1) && cache.page(0, 2) && cache.page(1, 0), "");
  std::vector<float> key(kHeadDim), value(kHeadDim);
  CHECK_THROWS(std::invalid_argument, cache.read(0, 255, key.data(), value.data()), "dropped");
  CHECK_THROWS(std::invalid_argument, cache.truncate(455), "position 255 is needed");
  KvCache other(new_pages({{1, kHeadDim, 200}, {1, kHeadDim, 0}}, KvFormat::kFloat16), 500, 4);
  std::vector<KvCache::Pages> pages(2);
  for (int g = 0; g < 2; ++g)
    for (int i = 0; i < 4; ++i) pages[g].push_back(cache.page(g, i));
  CHECK_THROWS(std::invalid_argument, other.resume(pages, 500), "pages of another model");
  CHECK_THROWS(std::invalid_argument, cache.resume(pages, 500), "not empty");
  cache.truncate(456);
  CHECK(cache.length() == 456, "");
  cache.truncate(0);
  CHECK_THROWS(std::invalid_argument, cache.resume(pages, 501), "too long");
  CHECK_THROWS(std::invalid_argument, cache.resume(pages, 455), "position 255 is needed");
  cache.resume(pages, 456);
  CHECK(cache.length() == 456 && cache.page(1, 0) == pages[1][0] && cache.page(1, 3) != pages[1][3], "a full page is shared");
}

// The memory of heads, layers and pages does not overlap, and all of it is accessible.
void memory() {
  for (KvFormat format : kAllFormats) {
    const auto pages = new_pages({{3, 48, 0}, {1, 32, 5}, {1, 16, 0}}, format);
    KvCache cache(pages, 300, 200);
    cache.stage(200);
    std::vector<std::pair<uint8_t*, size_t>> parts;
    for (int l = 0; l < pages->layers(); ++l)
      for (int h = 0; h < pages->shape(l).kv_heads; ++h)
        for (int64_t p : {0, 128}) {
          const KvHead head = cache.head(l, h);
          parts.push_back({head.page(p), head.layout.bytes()});
        }
    size_t total = 0;
    for (size_t i = 0; i < parts.size(); ++i)
      std::memset(parts[i].first, static_cast<int>(i + 1), parts[i].second), total += parts[i].second;
    bool apart = total <= pages->bytes_in_use();
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
