// half.h against the processor's conversion instructions: all float16 values, and floats at and around every rounding border.
#include "weights/half.h"

#include "check.h"
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace outrider::test {
namespace {

#if defined(__x86_64__)
bool has_reference() { return __builtin_cpu_supports("f16c"); }
__attribute__((target("f16c"))) float reference_to_float(uint16_t h) { return _cvtsh_ss(h); }
__attribute__((target("f16c"))) uint16_t reference_to_half(float f) { return _cvtss_sh(f, _MM_FROUND_TO_NEAREST_INT); }
#elif defined(__aarch64__)
bool has_reference() { return true; }
float reference_to_float(uint16_t h) {
  __fp16 x;
  std::memcpy(&x, &h, 2);
  return static_cast<float>(x);
}
uint16_t reference_to_half(float f) {
  const __fp16 x = static_cast<__fp16>(f);
  uint16_t h;
  std::memcpy(&h, &x, 2);
  return h;
}
#else
bool has_reference() { return false; }
float reference_to_float(uint16_t) { return 0; }
uint16_t reference_to_half(float) { return 0; }
#endif

}  // namespace

void test_half() {
  // Known values, for processors without conversion instructions.
  CHECK(half_to_float(0x3c00) == 1.0f && half_to_float(0xc000) == -2.0f, "");
  CHECK(half_to_float(0x0001) == 0x1p-24f && half_to_float(0x7bff) == 65504.0f, "");
  CHECK(half_to_float(0x7c00) == infinity() && half_to_float(0xfc00) == -infinity(), "");
  CHECK(std::signbit(half_to_float(0x8000)) && half_to_float(0x8000) == 0.0f, "");
  CHECK(float_to_half(65519.996f) == 0x7bff && float_to_half(65520.0f) == 0x7c00, "the border to infinity");
  CHECK(float_to_half(0x1p-25f) == 0 && float_to_half(0x1.000002p-25f) == 1 && float_to_half(0x1.8p-24f) == 2,
        "ties of subnormals");
  CHECK(float_to_half(1.0f + 0x1p-11f) == 0x3c00 && float_to_half(1.0f + 0x3p-11f) == 0x3c02, "ties to even");
  CHECK(bfloat16_to_float(0x3f80) == 1.0f && bfloat16_to_float(0xff80) == -infinity(), "");

  std::vector<float> values(65536);
  for (uint32_t h = 0; h < 65536; ++h) values[h] = half_to_float(static_cast<uint16_t>(h));
  digest.add(values);
  long back = 0;
  for (uint32_t h = 0; h < 65536; ++h) {
    const bool nan = (h & 0x7c00) == 0x7c00 && (h & 0x3ff);
    back += float_to_half(values[h]) == (nan ? h | 0x200 : h);
  }
  CHECK(back == 65536, note("half to float to half", "right", back));
  if (!has_reference()) return;

  long right = 0;
  for (uint32_t h = 0; h < 65536; ++h) right += bits_of(values[h]) == bits_of(reference_to_float(static_cast<uint16_t>(h)));
  CHECK(right == 65536, note("half to float", "right", right));

  // Each half, the midpoint between it and the next, and a few floats around both.
  long wrong = 0;
  uint32_t first_wrong = 0;
  const auto compare = [&](uint32_t bits) {
    const float f = float_from_bits(bits);
    if (float_to_half(f) != reference_to_half(f) && wrong++ == 0) first_wrong = bits;
  };
  for (uint32_t h = 0; h < 0x7c00; ++h) {
    const uint32_t own = bits_of(values[h]);
    const float next = h + 1 == 0x7c00 ? 65536.0f : values[h + 1];
    const uint32_t middle = bits_of(values[h] / 2 + next / 2);
    for (uint32_t sign : {0u, 0x80000000u})
      for (int step = -2; step <= 2; ++step) {
        if (own != 0 || step >= 0) compare(sign | (own + static_cast<uint32_t>(step)));
        compare(sign | (middle + static_cast<uint32_t>(step)));
      }
  }
  for (uint64_t bits = 0; bits < 0x100000000u; bits += 4099) compare(static_cast<uint32_t>(bits));  // all exponents, and NaNs
  Random random(1);
  for (int i = 0; i < 200000; ++i) compare(static_cast<uint32_t>(random.next()));
  CHECK(wrong == 0, note("float to half", "wrong", wrong, "first", first_wrong));
}

}  // namespace outrider::test
