// reproducible::fma, log, exp and sine_cosine: close to the C library's, and, by the digest, the same bits on every platform. And
// the floating-point environment, which jobs and the sampler set themselves.
#include "runtime/reproducible_math.h"

#include <cfenv>
#include <limits>

#include "runtime/fused.h"
#include "sampling/sampling.h"
#include "runtime/threads.h"
#include "check.h"

namespace outrider::test {
namespace {

// |a - b| in units of the last place of b.
double ulps(double a, double b) {
  const double step = std::nextafter(std::fabs(b), std::numeric_limits<double>::infinity()) - std::fabs(b);
  return std::fabs(a - b) / step;
}

uint64_t bits_of_double(double x) {
  uint64_t bits;
  std::memcpy(&bits, &x, 8);
  return bits;
}

void test_log_and_exp(Random& random) {
  double worst_log = 0, worst_exp = 0;
  for (int i = 0; i < 200000; ++i) {
    const double fraction = static_cast<double>(random.next() >> 11) * 0x1p-53;
    const double x = i % 3 == 0   ? fraction + 1e-300
                     : i % 3 == 1 ? 0.7 + 0.6 * fraction
                                  : std::ldexp(1 + fraction, random.below(2000) - 1000);
    const double y = i % 2 ? -50 * fraction : 1400 * fraction - 700;
    worst_log = std::max(worst_log, ulps(reproducible::log(x), std::log(x)));
    worst_exp = std::max(worst_exp, ulps(reproducible::exp(y), std::exp(y)));
    const uint64_t bits[] = {bits_of_double(reproducible::log(x)), bits_of_double(reproducible::exp(y))};
    digest.add(bits, 2);
  }
  CHECK(worst_log <= 2 && worst_exp <= 2, note("log and exp", "log", std::llround(worst_log), "exp", std::llround(worst_exp)));
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  CHECK(reproducible::log(0) == -kInfinity && reproducible::log(kInfinity) == kInfinity && reproducible::log(1) == 0,
        "ends of log");
  CHECK(std::isnan(reproducible::log(-1)) && std::isnan(reproducible::log(std::nan(""))) &&
            std::isnan(reproducible::exp(std::nan(""))),
        "NaN");
  CHECK(reproducible::exp(-kInfinity) == 0 && reproducible::exp(kInfinity) == kInfinity && reproducible::exp(0) == 1,
        "ends of exp");
  CHECK(ulps(reproducible::log(5e-324), std::log(5e-324)) <= 2, "log of a subnormal number");
}

// Angles of rotary embeddings lie below 2^20.
void test_sine_cosine(Random& random) {
  long misrounded = 0;
  double worst = 0;
  constexpr int kAngles = 100000;
  for (int i = 0; i < kAngles; ++i) {
    const float fraction = static_cast<float>(random.next() >> 40) * 0x1p-24f;
    const float angle = i < 4 ? static_cast<float>(i) : fraction * (i % 2 ? 0x1p20f : 8.0f);
    const auto [sine, cosine] = reproducible::sine_cosine(angle);
    const double s = std::sin(static_cast<double>(angle)), c = std::cos(static_cast<double>(angle));
    misrounded += (sine != static_cast<float>(s)) + (cosine != static_cast<float>(c));
    worst = std::max({worst, std::fabs(sine - s), std::fabs(cosine - c)});
    const float both[] = {sine, cosine};
    digest.add(both, 2);
  }
  CHECK(misrounded <= 4, note("sine_cosine", "misrounded", misrounded));
  CHECK(worst < 3.1e-8, "sine_cosine");
}

// Results that depend on the rounding mode and on subnormal numbers.
std::vector<uint64_t> noise_in_this_environment() {
  std::vector<uint64_t> bits;
  std::vector<float> logits(300);
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = 0x1p-140f * static_cast<float>(i % 17);
  Sampler sampler;
  for (uint64_t position = 0; position < 50; ++position) {
    const auto drawn = sampler.gumbel_top_k({logits.data(), logits.size()}, {0.7, 0, 0.9, 0, 1}, 7, position, 2);
    for (const Candidate& c : drawn) bits.push_back(bits_of_double(c.value)), bits.push_back(static_cast<uint64_t>(c.token));
  }
  bits.push_back(bits_of_double(logsumexp({logits.data(), logits.size()})));
  return bits;
}

// Sums that lie so near to the middle between two floats that one rounding in double precision would end on the other side.
void test_fused() {
  constexpr float kUlp = 0x1p-23f, kInf = std::numeric_limits<float>::infinity(), kLeast = 0x1p-149f;
  CHECK(reproducible::fma(0x1p-24f * (1 + kUlp), 1 - kUlp, 1 + kUlp) == 1 + kUlp, "below the middle");
  CHECK(reproducible::fma(0x1p-24f * (1 + kUlp), 1 + kUlp, 1) == 1 + kUlp, "above the middle");
  CHECK(reproducible::fma(-0x1p-24f * (1 + kUlp), 1 - kUlp, -1 - kUlp) == -1 - kUlp, "below the middle, negative");
  CHECK(reproducible::fma(0x1p-24f, 1, 1) == 1, "the middle: to even");
  CHECK(reproducible::fma(0x1p-75f, 0x1p-75f, kLeast) == 2 * kLeast, "the middle between subnormal numbers: to even");
  CHECK(reproducible::fma(0x1p-75f, 0x1p-75f * (1 - kUlp), kLeast) == kLeast, "below the middle between subnormal numbers");
  CHECK(reproducible::fma(0x1p100f, 0x1p100f, -kInf) == -kInf, "infinity");
  CHECK(std::signbit(reproducible::fma(-0.0f, 1, -0.0f)), "the sign of zero");
}

void test_environment() {
  const std::vector<uint64_t> usual = noise_in_this_environment();
  digest.add(usual);
  ThreadPool pool(2);
  std::fesetround(FE_UPWARD);
  const std::vector<uint64_t> upward = noise_in_this_environment();
  volatile float one = 1.0f, little = 0x1p-30f;
  std::vector<float> sums(2);
  pool.run([&](int thread) { sums[thread] = one + little; });
  const float after = one + little;
  std::fesetround(FE_TONEAREST);
  CHECK(upward == usual, "the sampler sets its rounding mode");
  CHECK(sums == std::vector<float>(2, 1.0f), "a job sets its rounding mode");
  CHECK(after > 1.0f, "the caller's rounding mode is restored");
}

}  // namespace

void test_reproducible() {
  Random random(12);
  test_log_and_exp(random);
  test_sine_cosine(random);
  test_fused();
  test_environment();
}

}  // namespace outrider::test
