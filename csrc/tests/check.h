// A small test framework: counted checks, seeded random numbers, and a digest of the computed results.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <iterator>
#include <string>
#include <type_traits>
#include <vector>

#include "kernels/kernel_table.h"

namespace outrider::test {

struct Tally { long passed = 0, failed = 0; };
inline Tally tally;

// Counts a check; prints the first failures, with `note` to identify the case.
inline bool record(bool ok, const char* file, int line, const char* what, const std::string& note) {
  ++(ok ? tally.passed : tally.failed);
  if (!ok && tally.failed <= 40) {
    const char* name = std::strrchr(file, '/');
    std::printf("FAILED %s:%d: %s [%s]\n", name ? name + 1 : file, line, what, note.c_str());
  }
  return ok;
}
#define CHECK(condition, note) ::outrider::test::record((condition), __FILE__, __LINE__, #condition, (note))
#define CHECK_THROWS(exception, statement, note)                                                    \
  do {                                                                                              \
    bool thrown = false;                                                                            \
    try {                                                                                           \
      statement;                                                                                    \
    } catch (const exception&) { thrown = true; }                                                   \
    ::outrider::test::record(thrown, __FILE__, __LINE__, #statement " throws " #exception, (note)); \
  } while (0)

// Builds a note such as "Q4_K rows=3".
inline std::string note(const std::string& name) { return name; }
template <class... Rest> std::string note(const std::string& name, const char* key, long long value, Rest... rest) {
  return note(name + " " + key + "=" + std::to_string(value), rest...);
}

// SplitMix64 (Steele et al. 2014), without library functions, so that every platform draws the same numbers.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t next() {
    uint64_t z = state_ += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
  }
  int below(int n) { return static_cast<int>(next() % static_cast<uint64_t>(n)); }
  bool coin() { return next() >> 63; }
  // Uniform in [-1, 1), exact.
  float uniform() { return static_cast<float>(static_cast<int64_t>(next()) >> 40) * 0x1p-23f; }
  // Bell-shaped, of variance 1 and within +-3.
  float bell() {
    float sum = 0;
    for (int i = 0; i < 3; ++i) sum += uniform();
    return sum;
  }
  std::vector<float> bells(size_t n, float scale = 1.0f) {
    std::vector<float> r(n);
    for (float& x : r) x = scale * bell();
    return r;
  }

 private:
  uint64_t state_;
};

inline float infinity() { return __builtin_inff(); }
inline float not_a_number() { return __builtin_nanf(""); }

// The same bits; all NaNs count as equal, as their sign and payload are unspecified.
inline bool same_bits(float a, float b) { return std::memcmp(&a, &b, 4) == 0 || (a != a && b != b); }
inline bool same_bits(const float* a, const float* b, size_t n) {
  for (size_t i = 0; i < n; ++i)
    if (!same_bits(a[i], b[i])) return false;
  return true;
}
inline bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && same_bits(a.data(), b.data(), a.size());
}

// A hash of everything that the kernels compute in a seeded run. All NaNs count as one.
class Digest {
 public:
  template <class T> void add(const T* values, size_t n) {
    for (size_t i = 0; i < n; ++i) {
      if constexpr (std::is_same_v<T, float>) {
        uint32_t bits = 0x7fc00000u;
        if (values[i] == values[i]) std::memcpy(&bits, &values[i], 4);
        mix(bits);
      } else {
        mix(static_cast<uint64_t>(values[i]));
      }
    }
  }
  template <class T> void add(const std::vector<T>& v) { add(v.data(), v.size()); }
  uint64_t value() const { return state_; }

 private:
  void mix(uint64_t word) {
    state_ = (state_ ^ word) * 0x100000001B3u;
    state_ ^= state_ >> 29;
  }
  uint64_t state_ = 0xCBF29CE484222325u;
};
inline Digest digest;

const KernelTable& amx_defined();

// The tables under test; "portable", the reference, is first.
inline const std::vector<const KernelTable*>& tables() {
  static const std::vector<const KernelTable*> all = [] {
    size_t count;
    const KernelTable* const* best_first = available_kernels(&count);
    std::vector<const KernelTable*> tables(std::make_reverse_iterator(best_first + count), std::make_reverse_iterator(best_first));
    tables.insert(tables.begin() + 1, &amx_defined());
    return tables;
  }();
  return all;
}
inline const KernelTable& portable() { return *tables().front(); }

void test_half();
void test_linear();
void test_panels();
void test_head();
void test_weight();
void test_rowwise();
void test_attention();
void test_attention_work();
void test_kv_cache();
void test_threads();
void test_fork();
void test_work_stealing();
void test_sampling();
void test_quantize();
void test_gumbel();
void test_reproducible();
void test_program();

}  // namespace outrider::test
