// Attention against a sum in double precision, and what its bits must not depend on.
#include <algorithm>
#include <cmath>
#include <limits>

#include "../half.h"
#include "../kv_cache.h"
#include "check.h"

using namespace outrider;

namespace {

constexpr int kDim = 96, kCommitted = 53, kStaged = 6;
const float kNan = std::numeric_limits<float>::quiet_NaN();

// Keys and values of kCommitted positions in order, then of staged rows; NaN wherever nothing was written.
struct Cache {
  KvCache kv;
  bool half;
  std::vector<float> keys, values;  // (kCommitted + kStaged, kDim), rounded as stored

  Cache(const KernelTable& k, int window, int max_rows, bool half_precision)
      : kv({{1, kDim, window}}, 400, max_rows, half_precision), half(half_precision) {
    for (void* part : {kv.keys(0, 0), kv.values(0, 0)})
      for (int64_t i = 0; i < kv.capacity(0) * kDim; ++i) {
        if (half) static_cast<uint16_t*>(part)[i] = 0x7e00;
        else static_cast<float*>(part)[i] = kNan;
      }
    Random random(3);
    keys = random.values((kCommitted + kStaged) * kDim);
    values = random.values((kCommitted + kStaged) * kDim);
    if (half)
      for (auto* v : {&keys, &values})
        for (float& x : *v) x = half_to_float(float_to_half(x));
    for (int p = 0; p < kCommitted + kStaged; ++p) put(k, p, p);
  }
  void put(const KernelTable& k, int row, int position) {
    k.store_kv(keys.data() + row * kDim, values.data() + row * kDim, kDim, position % kv.capacity(0), half, kv.keys(0, 0),
               kv.values(0, 0));
  }
};

struct Query {
  int64_t position;
  std::vector<int32_t> path;  // empty: in order
};

const std::vector<Query> kQueries = {  // a chain of staged rows, and a tree over the same: 0 - 1 - 3 and 0 - 2 - 4 - 5
    {52, {}}, {53, {}}, {54, {}}, {58, {}}, {55, {0, 1, 3}}, {56, {0, 2, 4, 5}}, {54, {0, 2}}};

std::vector<float> attend(const KernelTable& k, const Cache& c, int window, const std::vector<Query>& queries,
                          const std::vector<float>& q, size_t first_query) {
  AttentionPack a{};
  a.keys = c.kv.keys(0, 0);
  a.values = c.kv.values(0, 0);
  a.half_precision = c.half;
  a.head_dim = kDim;
  a.capacity = c.kv.capacity(0);
  a.committed = kCommitted;
  std::vector<float> out(queries.size() * kDim), scratch(4 * 512);
  for (const Query& query : queries) {
    const int i = a.queries++;
    a.query[i] = q.data() + (first_query + i) * kDim;
    a.out[i] = out.data() + i * kDim;
    a.position[i] = query.position;
    a.first[i] = window ? std::max<int64_t>(0, query.position - window + 1) : 0;
    a.path[i] = query.path.empty() ? nullptr : query.path.data();
  }
  k.attend(a, scratch.data(), 512);
  return out;
}

std::vector<double> reference(const Cache& c, int window, const Query& query, const float* q) {
  std::vector<double> weight, out(kDim);
  std::vector<int64_t> rows;
  for (int64_t p = window ? std::max<int64_t>(0, query.position - window + 1) : 0; p <= query.position; ++p)
    rows.push_back(p < kCommitted || query.path.empty() ? p : kCommitted + query.path[p - kCommitted]);
  double largest = -1e300, total = 0;
  for (int64_t row : rows) {
    double score = 0;
    for (int d = 0; d < kDim; ++d) score += static_cast<double>(q[d]) * c.keys[row * kDim + d];
    weight.push_back(score);
    largest = std::max(largest, score);
  }
  for (double& w : weight) total += w = std::exp(w - largest);
  for (size_t i = 0; i < rows.size(); ++i)
    for (int d = 0; d < kDim; ++d) out[d] += weight[i] / total * c.values[rows[i] * kDim + d];
  return out;
}

void check_instruction_set(const KernelTable& k, int window, bool half, const std::vector<float>& q,
                           const std::vector<std::vector<float>>& alone) {
  Cache cache(k, window, 16, half);
  const Cache roomy(k, window, 111, half);  // another capacity: other slots after the wrap
  for (size_t i = 0; i < kQueries.size(); ++i) {
    CHECK(same_bits(attend(k, cache, window, {kQueries[i]}, q, i), alone[i]), "%s, query %zu, window %d", k.name, i, window);
    CHECK(same_bits(attend(k, roomy, window, {kQueries[i]}, q, i), alone[i]), "%s, query %zu, window %d", k.name, i, window);
    for (size_t size = 2; size <= kMaxQueries && i + size <= kQueries.size(); ++size) {  // any company
      const auto many = attend(k, cache, window, {kQueries.begin() + i, kQueries.begin() + i + size}, q, i);
      for (size_t j = 0; j < size; ++j)
        CHECK(std::memcmp(many.data() + j * kDim, alone[i + j].data(), kDim * 4) == 0, "%s, pack %zu + %zu", k.name, i, j);
    }
  }
  // The branch 0 - 2 - 4 - 5 laid out as a chain gives the bits of the tree.
  Cache line(k, window, 16, half);
  for (int d = 0; d < 4; ++d) line.put(k, kCommitted + kQueries[5].path[d], kCommitted + d);
  CHECK(same_bits(attend(k, line, window, {{56, {}}}, q, 5), alone[5]), "%s", k.name);
  // Poison in other branches must not be seen, neither by a row alone nor beside one that sees it.
  for (int row : {1, 3}) {
    std::fill_n(cache.keys.begin() + (kCommitted + row) * kDim, kDim, kNan);
    std::fill_n(cache.values.begin() + (kCommitted + row) * kDim, kDim, std::numeric_limits<float>::infinity());
    cache.put(k, kCommitted + row, kCommitted + row);
  }
  CHECK(same_bits(attend(k, cache, window, {kQueries[5]}, q, 5), alone[5]), "%s", k.name);
  const auto pair = attend(k, cache, window, {kQueries[4], kQueries[5]}, q, 4);
  CHECK(std::memcmp(pair.data() + kDim, alone[5].data(), kDim * 4) == 0, "%s: a poisoned branch beside it", k.name);
}

}  // namespace

void test_attention() {
  const std::vector<float> q = Random(99).values(kQueries.size() * kDim);
  for (int window : {0, 7, 16, 40})
    for (bool half : {false, true}) {
      const KernelTable& first = *all_kernels()[0];
      const Cache cache(first, window, 16, half);
      std::vector<std::vector<float>> alone;
      for (size_t i = 0; i < kQueries.size(); ++i) {
        alone.push_back(attend(first, cache, window, {kQueries[i]}, q, i));
        const std::vector<double> expected = reference(cache, window, kQueries[i], q.data() + i * kDim);
        for (int d = 0; d < kDim; ++d) CHECK(std::fabs(alone[i][d] - expected[d]) < 2e-6, "query %zu, window %d", i, window);
        digest(alone[i].data(), kDim * 4);
      }
      for (const KernelTable* k : all_kernels()) check_instruction_set(*k, window, half, q, alone);
    }
}
