// A small model with every part that a layer may have, from input tokens to sampled tokens: the results are the same for every
// instruction set, number of threads and split of the rows into passes, and are part of the checksum.
#include "program/program.h"
#include "sampling/sampling.h"
#include "packed.h"

namespace outrider::test {
namespace {

constexpr int kVocabulary = 200, kHidden = 64, kHeads = 4, kHeadDim = 32, kWidth = 128, kExperts = 6, kTopK = 2, kRows = 24,
              kAdapters = 2;
const std::vector<KvShape> kShapes = {{2, kHeadDim, 16}, {1, kHeadDim, 0}};
const std::vector<Format> kWeights = {Format::Q4_0, Format::Q8_0, Format::Q5_1, Format::BF16};
const std::vector<Format> kIntegers = {Format::I4, Format::I2, Format::I8};

// Records the model with weights from a seeded random stream.
class Recorder {
 public:
  Recorder(int threads, KvFormat format, bool adapts = false)
      : pool_(std::make_shared<ThreadPool>(threads)), random_(21), p_(kRows, kShapes, format, pool_), adapts_(adapts) {}

  Program& record() {
    const int x = p_.buffer("x", kHidden), normed = p_.buffer("normed", kHidden), y = p_.buffer("y", kHidden);
    const int q = p_.buffer("q", kHeads * kHeadDim), mixed = p_.buffer("mixed", kHeads * kHeadDim),
              rope = p_.buffer("rope", kHeadDim);
    p_.gather(table(), 8.0f, x);
    p_.rope_table(frequencies(), kHeadDim / 2, rope);
    for (int layer = 0; layer < 2; ++layer) {
      const int width = kShapes[layer].kv_heads * kHeadDim;
      const int k = p_.buffer("k", width), v = p_.buffer("v", width), gated = p_.buffer("gated", kWidth);
      p_.rms_norm(x, norm(kHidden), 1e-6f, normed);
      p_.linear(normed, {matrix(kHeads * kHeadDim, kHidden), matrix(width, kHidden), matrix(width, kHidden)}, {q, k, v}, 0.0f, {},
                low_rank({kHeads * kHeadDim, 0, width}, kHidden));
      p_.head_norm(k, norm(kHeadDim), 1e-6f, kShapes[layer].kv_heads, kHeadDim, k);
      p_.rope(k, rope, kShapes[layer].kv_heads, kHeadDim, 1.0f);
      p_.store_kv(k, v, layer);
      p_.head_norm(q, norm(kHeadDim), 1e-6f, kHeads, kHeadDim, q);
      p_.rope(q, rope, kHeads, kHeadDim, 0.25f);
      p_.attention(q, layer, kHeads, mixed);
      p_.linear(mixed, {matrix(kHidden, kHeads * kHeadDim)}, {y});
      p_.add(y, x);
      p_.rms_norm(x, norm(kHidden), 1e-6f, normed);
      const Weights gate = matrix(kWidth, kHidden),
                    up = matrix(kWidth, kHidden);  // the order of evaluation of arguments is unspecified
      p_.gated_linear(normed, gate, up, gated, 0.0f, 0.0f, 0.0f, low_rank({kWidth, kWidth}, kHidden));
      p_.linear(gated, {matrix(kHidden, kWidth)}, {y}, 0.0f, {}, low_rank({kHidden}, kWidth));
      experts(x, y);
      p_.rms_norm(y, norm(kHidden), 1e-6f, y);
      p_.add(y, x);
      p_.scale(x, 0.75f);
    }
    static_mlp(x, normed, y);
    p_.keep_outputs({x});
    p_.rms_norm(x, norm(kHidden), 1e-6f, normed);
    p_.head(normed, integers(kVocabulary, kHidden), 20.0f, 0.03f, 0.01f);
    return p_;
  }

 private:
  void experts(int x, int y) {
    const int normed = p_.buffer("expert input", kHidden), scores = p_.buffer("scores", kExperts),
              share = p_.buffer("share", kTopK);
    const int gated = p_.buffer("expert gated", 32, kTopK), parts = p_.buffer("parts", kHidden, kTopK),
              mix = p_.buffer("mix", kHidden);
    p_.rms_norm(x, nullptr, 1e-6f, normed);
    p_.multiply(normed, norm(kHidden));
    p_.linear(normed, {matrix(kExperts, kHidden)}, {scores});
    p_.route(scores, kTopK, norm(kExperts), share);
    p_.expert_gated_linear(normed, kTopK, matrix(64, kHidden, kExperts), gated);
    p_.expert_linear(gated, kTopK, matrix(kHidden, 32, kExperts), parts);
    p_.combine_experts(parts, share, kTopK, mix);
    p_.add(mix, y);
  }

  // Integer weights and static scales of activations, with dynamic ones for the same input in between.
  void static_mlp(int x, int normed, int y) {
    const int first = p_.buffer("first", 32), second = p_.buffer("second", 48), gated = p_.buffer("static gated", kWidth);
    p_.rms_norm(x, norm(kHidden), 1e-6f, normed);
    const Weights a = integers(32, kHidden), b = integers(48, kHidden), gate = integers(kWidth, kHidden),
                  up = integers(kWidth, kHidden), down = integers(kHidden, kWidth), dynamic = integers(32, kHidden);
    p_.linear(normed, {a, b}, {first, second}, 0.0234f, {0.0f, 0.11f});
    p_.linear(normed, {dynamic}, {first}, 0.0f, {0.07f});
    p_.gated_linear(normed, gate, up, gated, 0.0234f, 0.05f, 0.0625f);
    p_.linear(gated, {down}, {y}, 0.01f, {0.2f});
    p_.copy(first, y, 16);
    p_.add(y, x);
  }

  Weights integers(size_t rows, size_t columns) {
    const Format f = kIntegers[made_++ % kIntegers.size()];
    const StoredScales scales = random_scales(f, rows, made_ % 2 ? 1 : columns / kGroup, false, random_);
    return std::make_shared<Weight>(f, 1, rows, columns, random_blocks(f, rows, columns, random_).data(), *pool_, scales.view());
  }

  // By matrix (rows; 0 for one that is left as it is), what two adapters add; sums over the input are in two ranges.
  std::vector<std::vector<LowRank>> low_rank(const std::vector<int>& rows, int columns) {
    std::vector<std::vector<LowRank>> all;
    for (size_t i = 0; adapts_ && i < rows.size(); ++i) {
      all.emplace_back();
      for (int adapter = 0; rows[i] && adapter < kAdapters; ++adapter) {
        const Format f = adapter ? Format::BF16 : Format::F32;
        const size_t rank = adapter ? 17 : 3;
        const Weights a = packed(f, rank, columns / 2, 2), b = packed(f, rows[i], rank, 1);
        all.back().push_back({adapter, a, b, 0.5f});
      }
    }
    return all;
  }

  Weights packed(Format f, size_t rows, size_t columns, size_t count) {
    return std::make_shared<Weight>(f, count, rows, columns, random_blocks(f, count * rows, columns, random_).data(), *pool_);
  }

  Weights matrix(size_t rows, size_t columns, size_t count = 1) {
    return packed(kWeights[made_++ % kWeights.size()], rows, columns, count);
  }

  std::shared_ptr<const Table> table() {
    auto blocks = std::make_shared<std::vector<uint8_t>>(random_blocks(Format::F16, kVocabulary, kHidden, random_));
    return std::make_shared<Table>(Table{Format::F16, kVocabulary, kHidden, blocks->data(), {}, blocks});
  }

  Vector norm(int width) {
    auto values = std::make_shared<std::vector<float>>((width + 31) / 32 * 32, 0.0f);
    for (int i = 0; i < width; ++i) (*values)[i] = 1.0f + 0.2f * random_.uniform();
    return values;
  }

  // 1 / 2^(i / 2), correctly rounded, without a power function.
  Vector frequencies() {
    auto values = std::make_shared<std::vector<float>>(kHeadDim, 0.0f);
    for (int i = 0; i < kHeadDim / 2; ++i)
      (*values)[i] = static_cast<float>(std::ldexp(i % 2 ? 0x1.6a09e667f3bcdp-1 : 1.0, -(i / 2)));
    return values;
  }

  std::shared_ptr<ThreadPool> pool_;
  Random random_;
  Program p_;
  bool adapts_;
  size_t made_ = 0;
};

struct Answer {
  std::vector<float> logits;
  std::vector<int32_t> tokens;
  bool operator==(const Answer& other) const { return same_bits(logits, other.logits) && tokens == other.tokens; }
};

// The logits after each of 60 tokens, computed `chunk` at a time, their argmax, and a sampled token. With `adapts`, the rows
// have adapter 0, adapter 1 or none by turns.
Answer answer(int threads, KvFormat format, int chunk, bool adapts = false) {
  Recorder recorder(threads, format, adapts);
  Program& program = recorder.record();
  KvCache cache(std::make_shared<KvPages>(kShapes, format), 80, kRows);
  Sampler sampler;
  Answer found;
  constexpr int kTokens = 60;
  for (int begin = 0; begin < kTokens; begin += chunk) {
    const int rows = std::min(chunk, kTokens - begin);
    RowBatch batch;
    for (int r = 0; r < rows; ++r) {
      batch.token.push_back((begin + r) * 37 % kVocabulary);
      batch.sequence.push_back(0);
      batch.parent.push_back(r - 1);
      batch.outputs.push_back(r);
      if (adapts) batch.adapter.push_back((begin + r) % (kAdapters + 1) - 1);
    }
    batch.caches = {&cache};
    std::vector<float> logits(static_cast<size_t>(rows) * kVocabulary);
    for (const Best& best : program.run(batch, logits.data())) found.tokens.push_back(best.token);
    for (int r = 0; r < rows; ++r)
      found.tokens.push_back(sampler.sample({logits.data() + r * kVocabulary, kVocabulary}, {0.8, 0, 0.9, 0.01, 1}, 5, begin + r));
    found.logits.insert(found.logits.end(), logits.begin(), logits.end());
    cache.commit(batch.outputs);
  }
  // In an order that does not depend on `chunk`: first the argmaxes, then the sampled tokens.
  std::vector<int32_t> ordered;
  for (int sampled = 0; sampled < 2; ++sampled)
    for (int begin = 0, at = 0; begin < kTokens; begin += chunk) {
      const int rows = std::min(chunk, kTokens - begin);
      ordered.insert(ordered.end(), found.tokens.begin() + at + sampled * rows, found.tokens.begin() + at + (sampled + 1) * rows);
      at += 2 * rows;
    }
  found.tokens = ordered;
  return found;
}

void test_adapters() {
  choose_kernels("portable");
  const Answer definition = answer(1, KvFormat::kFloat32, kRows, true);
  CHECK(!(definition == answer(1, KvFormat::kFloat32, kRows)), "adapters change the results");
  for (const KernelTable* k : tables()) {
    use_kernels(*k);
    for (int threads : {1, 3})
      for (int chunk : {1, 7, kRows})
        CHECK(answer(threads, KvFormat::kFloat32, chunk, true) == definition,
              note(k->name, "with adapters, threads", threads, "chunk", chunk));
  }
  Recorder recorder(1, KvFormat::kFloat32, true);
  Program& program = recorder.record();
  KvCache cache(std::make_shared<KvPages>(kShapes, KvFormat::kFloat32), 80, kRows);
  RowBatch batch{{1}, {0}, {-1}, {0}, {&cache}};
  batch.adapter = {kAdapters};
  CHECK_THROWS(std::invalid_argument, program.run(batch, nullptr), "an adapter that the program does not have");
}

// More threads than any call of the model has tasks, and than most machines have cores.
void test_many_threads() {
  choose_kernels("portable");
  const Answer definition = answer(1, KvFormat::kFloat16, kRows, true);
  choose_kernels(tables().front()->name);
  for (int chunk : {1, 7, kRows})
    CHECK(answer(64, KvFormat::kFloat16, chunk, true) == definition, note("64 threads, chunk", "rows", chunk));
}

void test_second_thread_is_refused() {
  auto pool = std::make_shared<ThreadPool>(2);
  KvCache cache(std::make_shared<KvPages>(kShapes, KvFormat::kFloat16), 80, kRows);
  const Exclusive held(cache.in_use(), "the key-value cache");
  CHECK_THROWS(std::runtime_error, cache.commit({}), "the cache is in use");
  CHECK_THROWS(std::runtime_error, cache.truncate(0), "the cache is in use");
  Recorder recorder(1, KvFormat::kFloat16);
  Program& program = recorder.record();
  RowBatch batch{{1}, {0}, {-1}, {0}, {&cache}};
  CHECK_THROWS(std::runtime_error, program.run(batch, nullptr), "the cache is in use");
  bool refused = false;
  pool->run([&](int thread) {
    if (thread != 0) return;
    try {
      pool->run([](int) {});
    } catch (const std::runtime_error&) { refused = true; }
  });
  CHECK(refused, "the pool runs a job");
}

}  // namespace

void test_program() {
  for (KvFormat format : {KvFormat::kFloat16, KvFormat::kInt8, KvFormat::kFloat32}) {
    choose_kernels("portable");
    const Answer definition = answer(1, format, kRows);
    digest.add(definition.logits);
    digest.add(definition.tokens);
    bool finite = true;
    for (float logit : definition.logits) finite &= std::isfinite(logit);
    CHECK(finite, "logits are finite");
    for (const KernelTable* k : tables()) {
      use_kernels(*k);
      for (int threads : {1, 3})
        for (int chunk : {1, 7, kRows})
          CHECK(answer(threads, format, chunk) == definition, note(k->name, "threads", threads, "chunk", chunk));
    }
  }
  test_adapters();
  test_many_threads();
  choose_kernels(tables().back()->name);
  test_second_thread_is_refused();
}

}  // namespace outrider::test
