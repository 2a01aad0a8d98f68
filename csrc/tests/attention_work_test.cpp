// How threads share attention: enough tasks for many of them, and the same bits however it is divided.
#include "program/attention_work.h"

#include <memory>
#include <set>
#include <utility>

#include "program/program.h"
#include "check.h"

namespace outrider::test {
namespace {

constexpr int kRows = 64, kVocabulary = 50;

// A cache in which `length` positions are committed, whatever they hold.
std::unique_ptr<KvCache> committed(const KvShape& shape, int64_t length) {
  auto cache =
      std::make_unique<KvCache>(std::make_shared<KvPages>(std::vector<KvShape>{shape}, KvFormat::kInt8), length + kRows, kRows);
  std::vector<int32_t> path;
  for (int i = 0; i < kRows; ++i) path.push_back(i);
  while (cache->length() < length) {
    path.resize(std::min<int64_t>(kRows, length - cache->length()));
    cache->stage(static_cast<int>(path.size()));
    cache->commit(path);
  }
  return cache;
}

// Checks that the tasks cover every (KV head, query, span) once, and returns their number.
size_t tasks(const KvShape& shape, const std::vector<std::pair<int64_t, int>>& sequences, int group, int threads) {
  std::vector<std::unique_ptr<KvCache>> caches;
  RowBatch batch;
  for (const auto& [length, rows] : sequences) {
    for (int r = 0; r < rows; ++r) {
      batch.token.push_back(0);
      batch.sequence.push_back(static_cast<int32_t>(caches.size()));
      batch.parent.push_back(r == 0 ? -1 : static_cast<int32_t>(batch.token.size()) - 2);
    }
    caches.push_back(committed(shape, length));
    batch.caches.push_back(caches.back().get());
  }
  Pass pass;
  pass.prepare(batch, 1024, 1, false, 0);
  const AttentionWork work(pass, false, shape, group, threads);
  using Piece = std::pair<std::pair<int, int64_t>, std::pair<int, int64_t>>;  // KV head, span; first row, pair
  std::set<Piece> covered;
  std::set<size_t> parts;
  bool once = true;
  for (size_t t = 0; t < work.tasks(); ++t) {
    const AttentionBlock& block = work.block(t);
    const int head = work.kv_head(t);
    const int64_t begin = work.by_span() ? work.span(block, t) : block.first_span, count = work.by_span() ? 1 : block.spans;
    if (work.by_span()) once &= parts.insert(work.part_at(block, head, begin)).second;
    for (int64_t span = begin; span < begin + count; ++span)
      for (int j = block.first; j < block.first + block.count; ++j)
        once &= covered.insert({{head, span}, {block.range->begin, j}}).second;
  }
  CHECK(once, "no piece is computed twice");
  for (int r = 0; r < pass.rows(false); ++r)
    for (int64_t span = pass.first_position(r, shape.window) / kSpanPositions; span <= pass.last_position(r) / kSpanPositions;
         ++span)
      for (int head = 0; head < shape.kv_heads; ++head)
        for (const RowRange& range : pass.ranges(false))
          for (int g = 0; g < group && r >= range.begin && r < range.end; ++g)
            once &= covered.count({{head, span}, {range.begin, (r - range.begin) * group + g}}) == 1;
  CHECK(once, "every piece is computed");
  return work.tasks();
}

void test_tasks() {
  const KvShape full{1, 64, 0}, sliding{1, 64, 512}, many{8, 64, 0};
  CHECK(tasks(full, {{8191, 1}}, 8, 64) == 64, "one row, one KV head");
  CHECK(tasks(full, {{32767, 1}}, 8, 64) == 128, "");
  CHECK(tasks(many, {{0, 1}}, 2, 16) == 16, "a first token has its heads alone");
  CHECK(tasks(sliding, {{5000, 1}}, 8, 64) >= 8, "");
  CHECK(tasks(full, {{8191, 1}}, 8, 2) == 8, "all queries of a row share each span");
  CHECK(tasks(full, {{4000, 4}}, 8, 2) == 4, "");
  CHECK(tasks(full, {{30000, 1}, {100, 1}, {5, 1}, {2000, 3}}, 8, 2) > 30, "a long sequence does not wait for one thread");
  CHECK(tasks(full, {{1000, 64}}, 8, 64) >= 64, "");
}

// Two layers that store keys and values from tables, and mix them for queries from one if they `attend`: then into two outputs.
struct Layers {
  Program program;
  std::vector<int> mixed;

  Layers(const std::vector<KvShape>& shapes, KvFormat format, std::shared_ptr<ThreadPool> pool, bool attend)
      : program(kRows, shapes, format, std::move(pool)) {
    Random random(3);
    const auto gather = [&](const char* name, int width) {
      auto rows = std::make_shared<std::vector<float>>(random.bells(static_cast<size_t>(kVocabulary) * width));
      const auto* bytes = reinterpret_cast<const uint8_t*>(rows->data());
      const int buffer = program.buffer(name, width);
      program.gather(std::make_shared<Table>(Table{Format::F32, kVocabulary, static_cast<size_t>(width), bytes, {}, rows}), 1.0f,
                     buffer);
      return buffer;
    };
    const int key = gather("key", 64), value = gather("value", 64), query = gather("query", 8 * 32);
    for (int layer = 0; layer < 2; ++layer) {
      program.store_kv(key, value, layer);
      if (!attend) continue;
      mixed.push_back(program.buffer("mixed", 8 * 32));
      program.attention(query, layer, 8, mixed.back());
    }
    program.keep_outputs(mixed);
  }
};

// The attention of the last rows of sequences of 2,100 and 40 positions.
std::vector<float> attention(int threads, KvFormat format, int chunk) {
  const std::vector<KvShape> shapes = {{2, 32, 0}, {2, 32, 700}};
  const auto pool = std::make_shared<ThreadPool>(threads);
  Layers filling(shapes, format, pool, false), attending(shapes, format, pool, true);
  const auto pages = std::make_shared<KvPages>(shapes, format);
  KvCache one(pages, 2200, kRows), other(pages, 2200, kRows);
  std::vector<float> found;
  const auto run = [&](Layers& layers, int rows, int others) {
    RowBatch batch;
    batch.caches = {&one, &other};
    std::vector<int32_t> path;
    for (int r = 0; r < rows + others; ++r) {
      const bool second = r >= rows;
      const int64_t position = second ? other.length() + r - rows : one.length() + r;
      batch.token.push_back(static_cast<int32_t>((position * 31 + 7 * second) % kVocabulary));
      batch.sequence.push_back(second);
      batch.parent.push_back(r == 0 || r == rows ? -1 : r - 1);
      if (!layers.mixed.empty()) batch.outputs.push_back(r);
      path.push_back(second ? r - rows : r);
    }
    layers.program.run(batch, nullptr);
    for (int mixed : layers.mixed) {
      const std::vector<float> rest = layers.program.read(mixed, rows + others);
      found.insert(found.end(), rest.begin(), rest.end());
    }
    one.commit({path.begin(), path.begin() + rows});
    other.commit({path.begin() + rows, path.end()});
  };
  while (one.length() < 2100) run(filling, static_cast<int>(std::min<int64_t>(chunk, 2100 - one.length())), 0);
  run(filling, 1, 40);
  run(attending, 1, 0);
  run(attending, 5, 3);
  return found;
}

}  // namespace

void test_attention_work() {
  test_tasks();
  for (KvFormat format : {KvFormat::kFloat16, KvFormat::kInt8}) {
    const std::vector<float> definition = attention(1, format, kRows);
    digest.add(definition);
    for (int threads : {2, 3, 16})
      CHECK(same_bits(attention(threads, format, threads == 2 ? 9 : kRows), definition), note("attention", "threads", threads));
  }
}

}  // namespace outrider::test
