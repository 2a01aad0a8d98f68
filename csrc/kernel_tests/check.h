// The little that these tests need of a framework: count, report, go on.
#pragma once
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

#include "../kernel_table.h"

inline int g_passed = 0, g_failed = 0;

#define CHECK(condition, ...)                                    \
  do {                                                           \
    if (condition) {                                             \
      ++g_passed;                                                \
    } else if (++g_failed <= 20) {                               \
      std::printf("%s:%d: %s: ", __FILE__, __LINE__, #condition); \
      std::printf(__VA_ARGS__);                                  \
      std::printf("\n");                                         \
    }                                                            \
  } while (0)

// FNV-1a over all results that must agree between processors.
inline uint64_t g_checksum = 14695981039346656037ull;
inline void digest(const void* p, size_t bytes) {
  for (size_t i = 0; i < bytes; ++i) g_checksum = (g_checksum ^ static_cast<const uint8_t*>(p)[i]) * 1099511628211ull;
}

inline std::vector<const outrider::KernelTable*> all_kernels() {
  size_t count;
  const auto* tables = outrider::available_kernels(&count);
  return {tables, tables + count};
}

// Seeded values without the library's distributions, which differ between platforms.
struct Random {
  std::mt19937 engine;
  explicit Random(uint32_t seed) : engine(seed) {}
  uint32_t bits() { return engine(); }
  int below(int n) { return static_cast<int>(engine() % static_cast<uint32_t>(n)); }
  float value(float scale = 1.0f) { return (static_cast<float>(engine() >> 8) * 0x1p-23f - 1.0f) * scale; }
  std::vector<float> values(size_t n, float scale = 1.0f) {
    std::vector<float> v(n);
    for (float& x : v) x = value(scale);
    return v;
  }
};

template <class T> bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

void test_halves();
void test_linear();
void test_head();
void test_rowwise();
void test_attention();
void test_kv_cache();
void test_threads();
void test_sampling();
