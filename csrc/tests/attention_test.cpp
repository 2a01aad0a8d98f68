// attend() and store_kv() against a naive reference in double, and bit for bit against the same query alone, in a cache that
// holds its keys in order: packs, ring buffers, slots and other branches of a tree must not change a result.
#include <algorithm>

#include "weights/half.h"
#include "check.h"

namespace outrider::test {
namespace {

// One head's cache; every slot holds NaN or infinity ("poison") until it is written.
struct Head {
  KvFormat format;
  int head_dim;
  HeadLayout at;
  std::vector<std::vector<float>> pages;  // float for its alignment
  std::vector<uint8_t*> addresses;

  Head(KvFormat f, int d, int64_t positions, bool infinite) : format(f), head_dim(d), at(head_layout(f, d, 0)) {
    const float poison = infinite ? infinity() : not_a_number();
    for (int64_t p = 0; p < positions; p += kPagePositions) {
      pages.emplace_back(at.end / sizeof(float), poison);
      uint8_t* page = reinterpret_cast<uint8_t*>(pages.back().data());
      const size_t codes = kPagePositions * d;
      if (format == KvFormat::kFloat32) std::fill_n(reinterpret_cast<float*>(page + at.values), codes, infinite ? -poison : poison);
      if (format == KvFormat::kFloat16) {
        std::fill_n(reinterpret_cast<uint16_t*>(page + at.keys), codes, infinite ? 0x7c00 : 0x7e00);
        std::fill_n(reinterpret_cast<uint16_t*>(page + at.values), codes, infinite ? 0xfc00 : 0x7e00);
      }
      if (format == KvFormat::kInt8) {
        std::fill_n(reinterpret_cast<int8_t*>(page + at.keys), codes, 101);
        std::fill_n(reinterpret_cast<int8_t*>(page + at.values), codes, -101);
      }
      addresses.push_back(page);
    }
  }
  KvHead memory() const { return {format, at, addresses.data()}; }
  void store(const KernelTable& k, int64_t position, const std::vector<float>& key, const std::vector<float>& value) {
    const int middle = head_dim / 32 * 16;  // in two parts, as by two threads
    k.store_kv(key.data(), value.data(), head_dim, middle, head_dim, position, memory());
    k.store_kv(key.data(), value.data(), head_dim, 0, middle, position, memory());
  }
};

// The 8-bit codes of a head's key or value.
struct Codes {
  std::vector<int8_t> codes;
  float scale;
  explicit Codes(const std::vector<float>& x) : scale(0) {
    float largest = 0;
    for (float v : x) largest = std::max(largest, std::fabs(v));
    for (float v : x) codes.push_back(static_cast<int8_t>(largest > 0 ? std::nearbyint(v * (127.0f / largest)) : 0.0f));
    scale = largest / 127.0f;
  }
};

std::vector<double> cached(KvFormat format, const std::vector<float>& x) {
  std::vector<double> out;
  const Codes as(x);
  for (size_t d = 0; d < x.size(); ++d)
    out.push_back(format == KvFormat::kFloat32   ? x[d]
                  : format == KvFormat::kFloat16 ? half_to_float(float_to_half(x[d]))
                                                 : double{as.scale} * as.codes[d]);
  return out;
}

// A sequence of `committed` positions and a tree of staged rows, with keys and values for all.
struct Scene {
  int head_dim;
  KvFormat format;
  int64_t committed, window;
  std::vector<int> parent;                     // by staged row; -1: the last committed position
  std::vector<std::vector<float>> key, value;  // by position, then by staged row
  std::vector<std::vector<float>> query;       // (staged rows * heads)
  int heads;

  int rows() const { return static_cast<int>(parent.size()); }
  std::vector<int32_t> path(int row) const {
    std::vector<int32_t> p;
    for (int at = row; at != -1; at = parent[at]) p.push_back(at);
    std::reverse(p.begin(), p.end());
    return p;
  }
  int64_t position(int row) const { return committed + static_cast<int64_t>(path(row).size()) - 1; }
  int64_t first(int row) const { return window ? std::max<int64_t>(0, position(row) - window + 1) : 0; }
  int64_t earliest() const {  // the first position that any row attends to
    int64_t p = committed;
    for (int r = 0; r < rows(); ++r) p = std::min(p, first(r));
    return p;
  }
  bool in_order(int row) const {
    const std::vector<int32_t> p = path(row);
    for (size_t d = 0; d < p.size(); ++d)
      if (p[d] != static_cast<int32_t>(d)) return false;
    return true;
  }
  // The index of the key and value at position `p` on the path to `row`.
  size_t index(int row, int64_t p) const {
    return p < committed ? static_cast<size_t>(p) : static_cast<size_t>(committed + path(row)[p - committed]);
  }
};

Scene random_scene(int head_dim, KvFormat format, int64_t committed, int64_t window, std::vector<int> parent, int heads,
                   float spread, Random& random) {
  Scene s{head_dim, format, committed, window, std::move(parent), {}, {}, {}, heads};
  for (int64_t i = 0; i < committed + s.rows(); ++i) {
    s.key.push_back(random.bells(head_dim));
    s.value.push_back(random.bells(head_dim));
  }
  const float scale = spread / static_cast<float>(head_dim);
  for (int i = 0; i < s.rows() * heads; ++i) s.query.push_back(random.bells(head_dim, scale));
  return s;
}

// Runs one pack with outputs and scratch rows of the minimum length.
std::vector<std::vector<float>> run(const KernelTable& k, Head& h, int64_t committed, const std::vector<const float*>& query,
                                    const std::vector<int64_t>& first, const std::vector<int64_t>& position,
                                    const std::vector<const int32_t*>& path) {
  AttentionPack a{};
  a.cache = h.memory();
  a.head_dim = h.head_dim;
  a.committed = committed;
  a.queries = static_cast<int>(query.size());
  std::vector<std::vector<float>> out(query.size(), std::vector<float>(h.head_dim, 7.0f));
  int64_t base = INT64_MAX, last = 0;
  for (size_t q = 0; q < query.size(); ++q) {
    a.query[q] = query[q];
    a.out[q] = out[q].data();
    a.first[q] = first[q];
    a.position[q] = position[q];
    a.path[q] = path[q];
    base = std::min(base, first[q] / 16 * 16);
    last = std::max(last, path[q] ? committed + path[q][position[q] - committed] : position[q]);
  }
  const size_t stride = static_cast<size_t>((last - base) / 16 + 1) * 16;
  std::vector<float> scratch(stride * query.size(), not_a_number());
  k.attend(a, scratch.data(), stride);
  return out;
}

// The query alone; the positions that it attends to are in order in a cache that does not wrap; all other slots hold poison.
std::vector<float> alone(const KernelTable& k, const Scene& s, int row, int head, bool infinite) {
  const int64_t first = s.first(row), position = s.position(row);
  Head h(s.format, s.head_dim, s.committed + s.rows(), infinite);
  for (int64_t p = first; p <= position; ++p) h.store(k, p, s.key[s.index(row, p)], s.value[s.index(row, p)]);
  return run(k, h, s.committed, {s.query[row * s.heads + head].data()}, {first}, {position}, {nullptr})[0];
}

void check_accuracy(const Scene& s, int row, int head, const std::vector<float>& got, const std::string& what) {
  const std::vector<float>& q = s.query[row * s.heads + head];
  double largest = -1e300, sum = 0, magnitude = 0;
  std::vector<double> scores, mixed(s.head_dim);
  for (int64_t p = s.first(row); p <= s.position(row); ++p) {
    double score = 0, m = 0;
    const std::vector<double> key = cached(s.format, s.key[s.index(row, p)]);
    for (int d = 0; d < s.head_dim; ++d) {
      const double x = double{q[d]} * key[d];
      score += x;
      m += std::fabs(x);
    }
    scores.push_back(score);
    largest = std::max(largest, score);
    magnitude = std::max(magnitude, m);
  }
  for (double& x : scores) sum += x = std::exp(x - largest);
  for (int64_t p = s.first(row); p <= s.position(row); ++p) {
    const std::vector<double> value = cached(s.format, s.value[s.index(row, p)]);
    for (int d = 0; d < s.head_dim; ++d) mixed[d] += scores[p - s.first(row)] / sum * value[d];
  }
  bool close = true;
  for (int d = 0; d < s.head_dim; ++d) close &= std::fabs(got[d] - mixed[d]) <= 3.5 * 1e-6 * (1 + magnitude);
  CHECK(close, what);
}

void check_scene(const Scene& s, const std::string& what, uint64_t seed) {
  std::vector<std::vector<float>> definition;
  for (const KernelTable* k : tables()) {
    Random random(seed);  // the same packs for every instruction set
    const std::string here = std::string(k->name) + " " + what;
    std::vector<std::vector<float>> expected;
    for (int r = 0; r < s.rows(); ++r)
      for (int h = 0; h < s.heads; ++h) {
        expected.push_back(alone(*k, s, r, h, false));
        CHECK(same_bits(expected.back(), alone(*k, s, r, h, true)), here + " infinite poison");
      }
    if (definition.empty()) {
      definition = expected;
      for (int r = 0; r < s.rows(); ++r)
        for (int h = 0; h < s.heads; ++h) check_accuracy(s, r, h, expected[r * s.heads + h], here);
      for (const std::vector<float>& e : expected) digest.add(e);
    }
    bool agreed = true;
    for (size_t i = 0; i < expected.size(); ++i) agreed &= same_bits(expected[i], definition[i]);
    CHECK(agreed, here);

    // The engine's layout.
    std::vector<std::vector<int32_t>> paths;
    for (int r = 0; r < s.rows(); ++r) paths.push_back(s.path(r));
    for (const bool infinite : {false, true}) {
      Head h(s.format, s.head_dim, s.committed + s.rows(), infinite);
      for (int64_t p = s.earliest(); p < s.committed + s.rows(); ++p) h.store(*k, p, s.key[p], s.value[p]);
      bool same = true;
      for (int pack = 1; pack <= kMaxQueries; ++pack)
        for (int repeat = 0; repeat < (pack == 1 ? s.rows() : 6); ++repeat) {
          std::vector<int> chosen;  // row * heads + head: packs as in the engine, then random ones
          const int start = random.below(s.rows() * s.heads);
          for (int i = 0; i < pack; ++i)
            chosen.push_back(repeat % 2 ? (start + i) % (s.rows() * s.heads) : random.below(s.rows() * s.heads));
          std::vector<const float*> query;
          std::vector<int64_t> first, position;
          std::vector<const int32_t*> path;
          for (int c : chosen) {
            const int row = c / s.heads;
            query.push_back(s.query[c].data());
            first.push_back(s.first(row));
            position.push_back(s.position(row));
            path.push_back(s.in_order(row) && random.coin() ? nullptr : paths[row].data());
          }
          const std::vector<std::vector<float>> got = run(*k, h, s.committed, query, first, position, path);
          for (int i = 0; i < pack; ++i) same &= same_bits(got[i], expected[chosen[i]]);
        }
      CHECK(same, here);

      // All positions that a row does not attend to hold poison, other branches included.
      bool clean = true;
      for (int r = 0; r < s.rows(); ++r) {
        Head poisoned(s.format, s.head_dim, s.committed + s.rows(), r % 2 == infinite);
        for (int64_t p = s.first(r); p <= s.position(r); ++p) {
          const size_t i = s.index(r, p);
          poisoned.store(*k, static_cast<int64_t>(i), s.key[i], s.value[i]);
        }
        clean &= same_bits(
            run(*k, poisoned, s.committed, {s.query[r * s.heads].data()}, {s.first(r)}, {s.position(r)}, {paths[r].data()})[0],
            expected[r * s.heads]);
      }
      CHECK(clean, here);
    }
  }
}

void test_store(Random& random) {
  for (int head_dim : {16, 48, 256})
    for (KvFormat format : {KvFormat::kFloat32, KvFormat::kFloat16, KvFormat::kInt8}) {
      const int64_t capacity = 32;
      std::vector<std::vector<float>> keys, values;
      for (int64_t slot = 0; slot < capacity; ++slot)
        keys.push_back(random.bells(head_dim, 100.0f)), values.push_back(random.bells(head_dim, 1e-6f));
      keys[3][0] = 1e6f, keys[3][1] = -1e6f, values[3][2] = 65519.0f, values[3][3] = 65520.0f;
      for (const KernelTable* k : tables()) {
        Head h(format, head_dim, capacity, false);
        for (int64_t slot : {3, 0, 31, 16, 15, 20}) h.store(*k, slot, keys[slot], values[slot]);
        bool right = true;
        for (int64_t slot = 0; slot < capacity; ++slot) {
          const bool stored = slot == 3 || slot == 0 || slot == 31 || slot == 16 || slot == 15 || slot == 20;
          const Codes key(keys[slot]), value(values[slot]);
          const KvHead at = h.memory();
          if (format == KvFormat::kInt8) {
            right &= same_bits(at.in_page<float>(slot, at.at.key_scales)[slot], stored ? key.scale : not_a_number());
            right &= same_bits(at.in_page<float>(slot, at.at.value_scales)[slot], stored ? value.scale : not_a_number());
          }
          for (int d = 0; d < head_dim; ++d) {
            const size_t key_at = static_cast<size_t>((slot / 16 * head_dim + d) * 16 + slot % 16),
                         value_at = static_cast<size_t>(slot * head_dim + d);
            if (format == KvFormat::kInt8) {
              right &= at.in_page<int8_t>(slot, at.at.keys)[key_at] == (stored ? key.codes[d] : 101);
              right &= at.in_page<int8_t>(slot, at.at.values)[value_at] == (stored ? value.codes[d] : -101);
            } else if (format == KvFormat::kFloat16) {
              right &= at.in_page<uint16_t>(slot, at.at.keys)[key_at] == (stored ? float_to_half(keys[slot][d]) : 0x7e00);
              right &= at.in_page<uint16_t>(slot, at.at.values)[value_at] == (stored ? float_to_half(values[slot][d]) : 0x7e00);
            } else {
              right &= same_bits(at.in_page<float>(slot, at.at.keys)[key_at], stored ? keys[slot][d] : not_a_number());
              right &= same_bits(at.in_page<float>(slot, at.at.values)[value_at], stored ? values[slot][d] : not_a_number());
            }
          }
        }
        CHECK(right, note(k->name, "store_kv", head_dim, "format", static_cast<int>(format)));
      }
    }
}

std::vector<int> chain(int rows) {
  std::vector<int> parent(rows);
  for (int r = 0; r < rows; ++r) parent[r] = r - 1;
  return parent;
}

}  // namespace

void test_attention() {
  Random random(6);
  test_store(random);
  std::vector<std::vector<int>> trees = {{-1},     chain(5), {-1, -1, -1}, {-1, 0, 0, 1, 2, 2, 4}, {-1, 0, 1, 0, 3, -1, 5, 6, 7},
                                         chain(21)};
  std::vector<int> large(19);
  for (int r = 0; r < 19; ++r) large[r] = random.below(r + 1) - 1;
  trees.push_back(large);
  struct Length { int64_t committed, window; };
  const Length lengths[] = {{0, 0}, {1, 0}, {16, 0}, {45, 0}, {150, 0}, {0, 8}, {7, 8}, {100, 8}, {100, 1}, {333, 48}, {200, 64}};
  int scene = 0;
  for (const std::vector<int>& tree : trees)
    for (const Length& l : lengths) {
      const int dims[] = {16, 48, 80, 144, 192};
      const int head_dim = dims[scene % 5], heads = 1 + scene % 3;
      const float spread = scene % 7 == 3 ? 400.0f : 8.0f;  // sometimes so large that weights underflow
      const KvFormat format = static_cast<KvFormat>(scene++ % 3);
      const Scene s = random_scene(head_dim, format, l.committed, l.window, tree, heads, spread, random);
      std::string what = note("attend", "head_dim", head_dim, "format", static_cast<int>(format), "committed", l.committed);
      check_scene(s, note(what, "window", l.window, "rows", s.rows()), static_cast<uint64_t>(scene));
    }
}

}  // namespace outrider::test
