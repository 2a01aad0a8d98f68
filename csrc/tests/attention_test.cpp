// Attention and store_kv() against a naive reference in double, and bit for bit against the same query alone, in a cache that holds
// its keys in order: packs, slots, spans computed apart and other branches of a tree must not change a result.
#include <algorithm>
#include <memory>

#include "weights/half.h"
#include "check.h"

namespace outrider::test {
namespace {

// One head's cache; every slot holds NaN or infinity ("poison") until it is written, scales included.
struct Head {
  KvLayout layout;
  size_t offset;
  std::vector<std::vector<uint8_t>> memory;
  std::vector<uint8_t*> pages;

  Head(KvFormat format, int head_dim, int64_t positions, bool infinite) : layout{format, head_dim}, offset(infinite ? 64 : 0) {
    const size_t codes = 2 * layout.values_at();
    for (int64_t p = 0; p < positions; p += kPagePositions) {
      std::vector<uint8_t> page(offset + layout.bytes());
      uint8_t* at = page.data() + offset;
      const auto fill = [&](size_t begin, size_t end, auto value) {
        for (size_t i = begin; i < end; i += sizeof value) std::memcpy(at + i, &value, sizeof value);
      };
      const float poison = infinite ? infinity() : not_a_number();
      if (format == KvFormat::kFloat32) fill(0, codes, poison);
      else if (format == KvFormat::kFloat16) fill(0, codes, static_cast<uint16_t>(infinite ? 0xfc00 : 0x7e00));
      else fill(0, codes, static_cast<uint8_t>(infinite ? 0x80 : 101)), fill(codes, layout.bytes(), poison);
      memory.push_back(std::move(page));
    }
    for (std::vector<uint8_t>& page : memory) pages.push_back(page.data());
  }
  KvHead head() const { return {layout, pages.data(), offset}; }
  void store(const KernelTable& k, int64_t at, const std::vector<float>& key, const std::vector<float>& value) {
    const int middle = layout.head_dim / (2 * kKeyGroup) * kKeyGroup;  // in two parts, as by two threads
    k.store_kv(key.data(), value.data(), middle, layout.head_dim, at, head());
    if (middle > 0) k.store_kv(key.data(), value.data(), 0, middle, at, head());
  }
};

// 8-bit codes of n numbers with one scale.
struct Codes {
  std::vector<int8_t> codes;
  float scale;
  Codes(const float* x, size_t n) : scale(0) {
    float largest = 0;
    for (size_t i = 0; i < n; ++i) largest = std::max(largest, std::fabs(x[i]));
    const bool finite = largest > 1e-30f && largest < infinity();
    for (size_t i = 0; i < n; ++i) codes.push_back(static_cast<int8_t>(finite ? std::nearbyint(x[i] * (127.0f / largest)) : 0.0f));
    scale = largest / 127.0f;
  }
  explicit Codes(const std::vector<float>& x) : Codes(x.data(), x.size()) {}
};

// What a cache holds of numbers of which `group` have one scale if the format is kInt8.
std::vector<double> cached(KvFormat format, const std::vector<float>& x, size_t group) {
  std::vector<double> out;
  for (size_t begin = 0; begin < x.size(); begin += group) {
    const size_t end = std::min(begin + group, x.size());
    const Codes as(x.data() + begin, end - begin);
    for (size_t d = begin; d < end; ++d)
      out.push_back(format == KvFormat::kFloat32   ? x[d]
                    : format == KvFormat::kFloat16 ? half_to_float(float_to_half(x[d]))
                                                   : double{as.scale} * as.codes[d - begin]);
  }
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
  int ahead = 0;  // rows of a chain see as many positions behind their own

  int rows() const { return static_cast<int>(parent.size()); }
  std::vector<int32_t> path(int row) const {
    std::vector<int32_t> p;
    for (int at = row; at != -1; at = parent[at]) p.push_back(at);
    std::reverse(p.begin(), p.end());
    return p;
  }
  int64_t position(int row) const { return committed + static_cast<int64_t>(path(row).size()) - 1; }
  int64_t first(int row) const { return window ? std::max<int64_t>(0, position(row) - window + 1) : 0; }
  int64_t last(int row) const { return ahead ? std::min(position(row) + ahead, committed + rows() - 1) : position(row); }
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
    return p < committed || ahead ? static_cast<size_t>(p) : static_cast<size_t>(committed + path(row)[p - committed]);
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

// Runs one pack: its spans one after the other, or each apart and added up afterwards.
std::vector<std::vector<float>> run(const KernelTable& k, const Head& h, int64_t committed, const std::vector<const float*>& query,
                                    const std::vector<int64_t>& first, const std::vector<int64_t>& last,
                                    const std::vector<const int32_t*>& path, bool apart) {
  AttentionPack a{};
  const int head_dim = h.layout.head_dim;
  a.cache = h.head();
  a.committed = committed;
  a.queries = static_cast<int>(query.size());
  std::vector<std::vector<float>> out(query.size(), std::vector<float>(head_dim, 7.0f));
  int64_t begin = INT64_MAX, end = 0, staged = 0;
  for (int q = 0; q < a.queries; ++q) {
    a.query[q] = query[q];
    a.out[q] = out[q].data();
    a.first[q] = first[q];
    a.last[q] = last[q];
    a.path[q] = path[q];
    begin = std::min(begin, first[q] / kSpanPositions);
    end = std::max(end, last[q] / kSpanPositions + 1);
    staged = std::max(staged, a.slot(q, last[q]) - committed + 1);
  }
  AttentionScratch scratch(head_dim, static_cast<int>(std::max<int64_t>(staged, 1)));
  const size_t floats = AttentionPart::floats(a.queries, head_dim);
  std::vector<float> parts(floats * static_cast<size_t>(apart ? end - begin : 1), not_a_number()), sum(floats, not_a_number());
  const auto part = [&](int64_t span) {
    return AttentionPart::in(parts.data() + (apart ? floats * (span - begin) : 0), a.queries);
  };
  const AttentionPart total = AttentionPart::in(sum.data(), a.queries);
  if (apart)
    for (int64_t span = end - 1; span >= begin; --span) k.attend_span(a, span, scratch, part(span));
  for (int64_t span = begin; span < end; ++span) {
    if (!apart) k.attend_span(a, span, scratch, part(span));
    k.add_span(a, span, part(span), total);
  }
  k.finish_attention(a, total);
  return out;
}

// A row's queries, each alone; the positions that it sees are in order; all other slots hold poison.
std::vector<std::vector<float>> alone(const KernelTable& k, const Scene& s, int row, bool infinite) {
  const int64_t first = s.first(row), last = s.last(row);
  Head h(s.format, s.head_dim, s.committed + s.rows(), infinite);
  for (int64_t p = first; p <= last; ++p) h.store(k, p, s.key[s.index(row, p)], s.value[s.index(row, p)]);
  std::vector<std::vector<float>> out;
  for (int head = 0; head < s.heads; ++head)
    out.push_back(run(k, h, s.committed, {s.query[row * s.heads + head].data()}, {first}, {last}, {nullptr}, false)[0]);
  return out;
}

// What a cache holds of a scene, by position, then by staged row.
struct Stored {
  std::vector<std::vector<double>> key, value;
  std::vector<Codes> codes;  // of the values

  explicit Stored(const Scene& s) {
    for (size_t i = 0; i < s.key.size(); ++i) {
      key.push_back(cached(s.format, s.key[i], kKeyGroup));
      value.push_back(cached(s.format, s.value[i], s.value[i].size()));
      codes.push_back(Codes(s.value[i]));
    }
  }
};

// Float formats: up to rounding. Codes: up to the rounding of weights, half a step of each tile's codes.
void check_accuracy(const Scene& s, const Stored& stored, int row, int head, const std::vector<float>& got,
                    const std::string& what) {
  const bool codes = s.format == KvFormat::kInt8;
  const std::vector<float>& plain = s.query[row * s.heads + head];
  const std::vector<double> q = codes ? cached(s.format, plain, kKeyGroup) : std::vector<double>(plain.begin(), plain.end());
  double largest = -1e300, sum = 0, magnitude = 0;
  std::vector<double> scores, mixed(s.head_dim), error(s.head_dim);
  for (int64_t p = s.first(row); p <= s.last(row); ++p) {
    double score = 0, m = 0;
    const std::vector<double>& key = stored.key[s.index(row, p)];
    for (int d = 0; d < s.head_dim; ++d) {
      const double x = q[d] * key[d];
      score += x;
      m += std::fabs(x);
    }
    scores.push_back(score);
    largest = std::max(largest, score);
    magnitude = std::max(magnitude, m);
  }
  for (double& x : scores) sum += x = std::exp(x - largest);
  for (int64_t tile = s.first(row) / kPagePositions * kPagePositions; tile <= s.last(row); tile += kPagePositions) {
    double step = 0;
    const int64_t begin = std::max(tile, s.first(row)), end = std::min(tile + kPagePositions, s.last(row) + 1);
    for (int64_t p = begin; p < end; ++p)
      step = std::max(step, scores[p - s.first(row)] / sum * stored.codes[s.index(row, p)].scale / 127);
    for (int64_t p = begin; p < end; ++p) {
      const size_t i = s.index(row, p);
      for (int d = 0; d < s.head_dim; ++d) {
        mixed[d] += scores[p - s.first(row)] / sum * stored.value[i][d];
        if (codes) error[d] += 0.501 * step * std::abs(stored.codes[i].codes[d]);
      }
    }
  }
  bool close = true;
  for (int d = 0; d < s.head_dim; ++d) close &= std::fabs(got[d] - mixed[d]) <= 3.5 * 1e-6 * (1 + magnitude) + error[d];
  CHECK(close, what);
}

void check_scene(const Scene& s, const std::string& what, uint64_t seed) {
  std::vector<std::vector<float>> definition;
  for (const KernelTable* k : tables()) {
    Random random(seed);  // the same packs for every instruction set
    const std::string here = std::string(k->name) + " " + what;
    std::vector<std::vector<float>> expected;
    for (int r = 0; r < s.rows(); ++r) {
      const std::vector<std::vector<float>> found = alone(*k, s, r, false), other = alone(*k, s, r, true);
      for (int h = 0; h < s.heads; ++h) CHECK(same_bits(found[h], other[h]), here + " infinite poison");
      expected.insert(expected.end(), found.begin(), found.end());
    }
    if (definition.empty()) {
      definition = expected;
      const Stored stored(s);
      for (int r = 0; r < s.rows(); ++r)
        for (int h = 0; h < s.heads; ++h) check_accuracy(s, stored, r, h, expected[r * s.heads + h], here);
      for (const std::vector<float>& e : expected) digest.add(e);
    }
    bool agreed = true;
    for (size_t i = 0; i < expected.size(); ++i) agreed &= same_bits(expected[i], definition[i]);
    CHECK(agreed, here);

    // The engine's layout.
    std::vector<std::vector<int32_t>> paths;
    for (int r = 0; r < s.rows(); ++r) paths.push_back(s.path(r));
    Head h(s.format, s.head_dim, s.committed + s.rows(), seed % 2);
    for (int64_t p = s.earliest(); p < s.committed + s.rows(); ++p) h.store(*k, p, s.key[p], s.value[p]);
    bool same = true;
    for (int pack : {1, 2, 3, 4, 5, 8, 15, kMaxQueries})
      for (int repeat = 0; repeat < (pack == 1 ? s.rows() : 4); ++repeat) {
        std::vector<int> chosen;  // row * heads + head: packs as in the engine, then random ones
        const int start = random.below(s.rows() * s.heads);
        for (int i = 0; i < pack; ++i)
          chosen.push_back(repeat % 2 ? (start + i) % (s.rows() * s.heads) : random.below(s.rows() * s.heads));
        std::vector<const float*> query;
        std::vector<int64_t> first, last;
        std::vector<const int32_t*> path;
        for (int c : chosen) {
          const int row = c / s.heads;
          query.push_back(s.query[c].data());
          first.push_back(s.first(row));
          last.push_back(s.last(row));
          path.push_back(s.ahead || (s.in_order(row) && random.coin()) ? nullptr : paths[row].data());
        }
        const std::vector<std::vector<float>> got = run(*k, h, s.committed, query, first, last, path, random.coin());
        for (int i = 0; i < pack; ++i) same &= same_bits(got[i], expected[chosen[i]]);
      }
    CHECK(same, here);

    // All positions that a row does not see hold poison, other branches included.
    bool clean = true;
    for (int r = 0; r < s.rows(); ++r) {
      Head poisoned(s.format, s.head_dim, s.committed + s.rows(), r % 2);
      for (int64_t p = s.first(r); p <= s.last(r); ++p) {
        const size_t i = s.index(r, p);
        poisoned.store(*k, static_cast<int64_t>(i), s.key[i], s.value[i]);
      }
      clean &= same_bits(run(*k, poisoned, s.committed, {s.query[r * s.heads].data()}, {s.first(r)}, {s.last(r)},
                             {s.ahead ? nullptr : paths[r].data()}, r % 3 == 0)[0],
                         expected[r * s.heads]);
    }
    CHECK(clean, here);
  }
}

// What store_kv() writes: the layout of KvLayout, and nothing in other slots.
void test_store(Random& random) {
  for (int head_dim : {16, 48, 80, 256})
    for (KvFormat format : {KvFormat::kFloat32, KvFormat::kFloat16, KvFormat::kInt8}) {
      const int64_t positions = 2 * kPagePositions;
      std::vector<std::vector<float>> keys, values;
      for (int64_t slot = 0; slot < positions; ++slot)
        keys.push_back(random.bells(head_dim, 100.0f)), values.push_back(random.bells(head_dim, 1e-6f));
      keys[3][0] = 1e6f, keys[3][1] = -1e6f, values[3][2] = 65519.0f, values[3][3] = 65520.0f;
      for (const KernelTable* k : tables()) {
        Head h(format, head_dim, positions, false);
        const Head untouched = h;
        const std::vector<int64_t> stored = {3, 0, 31, 16, 15, 20, 127, 128, 200};
        for (int64_t slot : stored) h.store(*k, slot, keys[slot], values[slot]);
        Head wanted = untouched;
        for (int64_t slot : stored) {
          uint8_t* page = wanted.memory[slot / kPagePositions].data();
          const int at = static_cast<int>(slot % kPagePositions);
          const KvLayout& l = h.layout;
          const auto put = [&](size_t base, size_t index, auto value) {
            std::memcpy(page + base + index * sizeof value, &value, sizeof value);
          };
          const Codes value(values[slot]);
          if (format == KvFormat::kInt8) put(l.value_scales_at(), at, value.scale);
          for (int d = 0; d < head_dim; ++d) {
            const int group = d / kKeyGroup, begin = group * kKeyGroup;
            const Codes key(keys[slot].data() + begin, std::min(kKeyGroup, head_dim - begin));
            if (format == KvFormat::kInt8) put(l.key_scales_at(), l.key_scale(at, group), key.scale);
            if (format == KvFormat::kInt8)
              put(0, l.key(at, d), key.codes[d - begin]), put(l.values_at(), l.value(at, d), value.codes[d]);
            else if (format == KvFormat::kFloat16)
              put(0, l.key(at, d), float_to_half(keys[slot][d])),
                  put(l.values_at(), l.value(at, d), float_to_half(values[slot][d]));
            else put(0, l.key(at, d), keys[slot][d]), put(l.values_at(), l.value(at, d), values[slot][d]);
          }
        }
        CHECK(h.memory == wanted.memory, note(k->name, "store_kv", head_dim, "format", static_cast<int>(format)));
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
  const Length lengths[] = {{0, 0},   {1, 0},   {16, 0},   {45, 0},   {150, 0},  {0, 8},      {7, 8},
                            {100, 8}, {100, 1}, {333, 48}, {200, 64}, {1019, 0}, {2040, 1100}};
  int scene = 0;
  for (const std::vector<int>& tree : trees)
    for (const Length& l : lengths) {
      const int dims[] = {16, 48, 80, 144, 192};
      const int head_dim = l.committed > 1000 ? 16 : dims[scene % 5], heads = 1 + scene % 3;
      const float spread = scene % 7 == 3 ? 400.0f : 8.0f;  // sometimes so large that weights underflow
      const KvFormat format = static_cast<KvFormat>(scene++ % 3);
      Scene s = random_scene(head_dim, format, l.committed, l.window, tree, heads, spread, random);
      if (tree == chain(s.rows())) s.ahead = scene % 3 * 2;  // as a block of an image sees its own end
      std::string what = note("attend", "head_dim", head_dim, "format", static_cast<int>(format), "committed", l.committed);
      check_scene(s, note(what, "window", l.window, "rows", s.rows()), static_cast<uint64_t>(scene));
    }
}

}  // namespace outrider::test
