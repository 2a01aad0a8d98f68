// The Python module outrider.backends.cpu._native. Long calls release the GIL.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>
#include <stdexcept>

#include "bindings/arrays.h"
#include "program/program.h"
#include "runtime/float_environment.h"
#include "sampling/sampling.h"
#include "weights/quantize.h"

using namespace nanobind::literals;

namespace outrider {
namespace {

std::string format_names() {
  std::string names;
  for (const FormatInfo& format : kFormats) names += (names.empty() ? "" : ", ") + std::string(format.name);
  return names;
}

Format format_named(const std::string& name) {
  for (int i = 0; i < kFormatCount; ++i)
    if (name == kFormats[i].name) return static_cast<Format>(i);
  throw std::invalid_argument("weights in format " + name + " are not supported: the formats are " + format_names());
}

void check_blocks(Format f, size_t rows, size_t columns, size_t bytes) {
  if (columns == 0 || columns % info(f).block)
    throw std::invalid_argument(std::string(info(f).name) + " rows must have a multiple of " + std::to_string(info(f).block) +
                                " columns, not " + std::to_string(columns));
  if (bytes != rows * row_bytes(f, columns))
    throw std::invalid_argument("a " + std::string(info(f).name) + " matrix of " + std::to_string(rows) + " x " +
                                std::to_string(columns) + " takes " + std::to_string(rows * row_bytes(f, columns)) +
                                " bytes, not " + std::to_string(bytes));
}

using ScaleArray = std::optional<FloatMatrix>;
using ZeroArray = std::optional<ByteMatrix>;

GroupScales checked_scales(Format f, size_t rows, size_t columns, const ScaleArray& scale, const ZeroArray& zero) {
  const std::string name = info(f).name;
  if ((info(f).scales == Scales::kGroups) != scale.has_value())
    throw std::invalid_argument(name + (scale ? " weights have no scales beside their blocks" : " weights need scales"));
  if (!scale) return {};
  const size_t groups = scale->shape(1);
  if (scale->shape(0) != rows || groups == 0 || columns % groups || columns / groups % kGroup)
    throw std::invalid_argument("the scales of " + std::to_string(rows) + " x " + std::to_string(columns) +
                                " weights must be (rows, groups), each group a multiple of 32 columns; not " +
                                std::to_string(scale->shape(0)) + " x " + std::to_string(groups));
  if (zero && (f == Format::F8_E4M3 || zero->shape(0) != rows || zero->shape(1) != groups))
    throw std::invalid_argument("zero points must be integers' and have the shape of the scales");
  return {scale->data(), zero ? zero->data() : nullptr, groups};
}

std::shared_ptr<Weight> make_weight(const std::string& format, size_t rows, size_t columns, const ByteArray& blocks,
                                    ThreadPool& pool, size_t count, const ScaleArray& scale, const ZeroArray& zero,
                                    const std::optional<FloatArray>& factors) {
  const Format f = format_named(format);
  check_blocks(f, count * rows, columns, blocks.shape(0));
  const GroupScales scales = checked_scales(f, count * rows, columns, scale, zero);
  std::vector<float> of_matrix;
  if (factors) of_matrix.assign(factors->data(), factors->data() + factors->shape(0));
  if (factors && of_matrix.size() != count)
    throw std::invalid_argument(std::to_string(of_matrix.size()) + " factors for " + std::to_string(count) + " matrices");
  if (factors && scale) throw std::invalid_argument("weights with scales beside them have no factors");
  nb::gil_scoped_release release;
  return std::make_shared<Weight>(f, count, rows, columns, blocks.data(), pool, scales, std::move(of_matrix));
}

std::shared_ptr<Table> make_table(const std::string& format, size_t rows, size_t columns, ByteArray blocks, ScaleArray scale,
                                  ZeroArray zero, float factor) {
  const Format f = format_named(format);
  check_blocks(f, rows, columns, blocks.shape(0));
  const GroupScales scales = checked_scales(f, rows, columns, scale, zero);
  const uint8_t* data = blocks.data();
  using Arrays = std::tuple<ByteArray, ScaleArray, ZeroArray>;
  std::shared_ptr<void> owner(new Arrays(std::move(blocks), std::move(scale), std::move(zero)), [](void* p) {
    nb::gil_scoped_acquire acquire;
    delete static_cast<Arrays*>(p);
  });
  return std::make_shared<Table>(Table{f, rows, columns, data, scales, std::move(owner), factor});
}

nb::ndarray<nb::numpy, float> dequantize(const std::string& format, size_t rows, size_t columns, const ByteArray& blocks,
                                         const ScaleArray& scale, const ZeroArray& zero) {
  const DefaultFloatEnvironment environment;
  const Format f = format_named(format);
  check_blocks(f, rows, columns, blocks.shape(0));
  const GroupScales scales = checked_scales(f, rows, columns, scale, zero);
  std::vector<float> out(rows * columns);
  for (size_t r = 0; r < rows; ++r)
    dequantize_row(f, blocks.data() + r * row_bytes(f, columns), columns, out.data() + r * columns, scales.from_row(r));
  return owned(std::move(out), {rows, columns});
}

std::tuple<nb::ndarray<nb::numpy, uint8_t>, double, double> quantize(const std::string& to, const std::string& format, size_t rows,
                                                                     size_t columns, const ByteArray& blocks, ThreadPool& pool) {
  const Format target = format_named(to), source = format_named(format);
  if ((target != Format::Q4_0 && target != Format::Q8_0) || columns % 32)
    throw std::invalid_argument("weights can be quantized to Q4_0 or Q8_0, in rows of a multiple of 32 columns; not to " + to +
                                " in rows of " + std::to_string(columns));
  check_blocks(source, rows, columns, blocks.shape(0));
  if (info(source).scales == Scales::kGroups) throw std::invalid_argument(format + " weights are quantized already");
  std::vector<uint8_t> out(rows * row_bytes(target, columns));
  std::vector<QuantizationError> errors(rows);
  {
    nb::gil_scoped_release release;
    pool.parallel_for(rows, std::max<size_t>(1, (1 << 16) / columns), [&](size_t begin, size_t end) {
      std::vector<float> row(columns);
      for (size_t r = begin; r < end; ++r) {
        dequantize_row(source, blocks.data() + r * row_bytes(source, columns), columns, row.data());
        errors[r] = quantize_weights(target, row.data(), columns, out.data() + r * row_bytes(target, columns));
      }
    });
  }
  double error = 0, total = 0;
  for (const QuantizationError& e : errors) {
    if (!e.finite) throw std::domain_error("a weight is not finite, or too large for a float16 scale");
    error += e.error, total += e.total;
  }
  const size_t size = out.size();
  return {owned(std::move(out), {size}), error, total};
}

Scores scores_of(const FloatArray& logits, const std::optional<IntArray>& tokens) {
  if (logits.shape(0) == 0) throw std::invalid_argument("logits must not be empty");
  if (tokens && tokens->shape(0) != logits.shape(0)) throw std::invalid_argument("tokens and logits must have the same length");
  return {logits.data(), logits.shape(0), tokens ? tokens->data() : nullptr};
}

SamplingFilter filter_of(double temperature, int64_t top_k, double top_p, double min_p, double typical_p) {
  if (!(temperature >= 0) || std::isinf(temperature)) throw std::invalid_argument("the temperature must be finite and at least 0");
  return {temperature, top_k, top_p, min_p, typical_p};
}

}  // namespace

NB_MODULE(_native, m) {
  m.doc() = "outrider's native core";
  nb::set_leak_warnings(false);  // a thread that outlives the interpreter keeps objects alive: a warning would be noise
  m.def(
      "instruction_sets",
      [] {
        size_t count;
        const KernelTable* const* tables = available_kernels(&count);
        std::vector<std::string> names;
        for (size_t i = 0; i < count; ++i) names.emplace_back(tables[i]->name);
        return names;
      },
      "The instruction sets that this build contains and this processor supports, fastest first.");
  m.def(
      "built_instruction_sets",
      [] {
        size_t count;
        const char* const* names = built_kernels(&count);
        return std::vector<std::string>(names, names + count);
      },
      "The instruction sets that this build contains, fastest first, also those that this processor lacks.");
  m.def("instruction_set", [] { return std::string(active_kernels().name); }, "The instruction set in use.");
  m.def(
      "choose_instruction_set",
      [](const std::string& name) {
        if (!choose_kernels(name.c_str()))
          throw std::invalid_argument("instruction set " + name + " is not available here: see instruction_sets()");
      },
      "name"_a, "Selects the instruction set for all later calls. Raises ValueError if it is not available.");
  m.def("dequantize", &dequantize, "format"_a, "rows"_a, "columns"_a, "blocks"_a, "scale"_a.none() = nb::none(),
        "zero"_a.none() = nb::none(),
        "Dequantizes checkpoint blocks, (rows * bytes per row,) uint8, to (rows, columns) float32. `scale` and `zero` as for "
        "pack().\n"
        "Raises ValueError if they do not fit the format.");

  nb::class_<ThreadPool>(m, "ThreadPool",
                         "Threads that run passes. Raises RuntimeError if two passes are started at the same time.")
      .def(
          "__init__",
          [](ThreadPool* self, int threads) {
            if (threads < 1 || threads > 256)
              throw std::invalid_argument("threads must lie between 1 and 256, not " + std::to_string(threads));
            new (self) ThreadPool(threads);
          },
          "threads"_a)
      .def_prop_ro("size", &ThreadPool::size);

  nb::class_<Weight>(m, "Weight", "A packed matrix, or a stack of matrices of one shape, for the linear kernels.")
      .def_prop_ro("nbytes", &Weight::bytes);
  m.def(
      "quantize", &quantize, "to"_a, "format"_a, "rows"_a, "columns"_a, "blocks"_a, "pool"_a,
      "Quantizes checkpoint blocks of (rows, columns) to format `to`, Q4_0 or Q8_0. Returns (blocks uint8, sum of squared errors,\n"
      "sum of squares). Raises ValueError if a weight is not finite or too large.");
  m.def("pack", &make_weight, "format"_a, "rows"_a, "columns"_a, "blocks"_a, "pool"_a, "count"_a = 1, "scale"_a.none() = nb::none(),
        "zero"_a.none() = nb::none(), "factors"_a.none() = nb::none(),
        "Packs checkpoint blocks of (count * rows, columns) into tiles of 16 rows (csrc/weights/layout.h); values are unchanged.\n"
        "Formats without scales in their blocks (I2, I4, I8, F8_E4M3) need `scale`, (count * rows, groups) float32, each group a\n"
        "multiple of 32 columns. `zero`: (count * rows, groups) uint8, the zero points of the codes 0, 1, ... (I8: -128, -127, "
        "...),\n"
        "or None for the middle code. `factors`: (count,) float32, by which the weights of each matrix are multiplied, or None.\n"
        "Raises ValueError if the arrays do not fit the format.");
  nb::class_<Table>(m, "Table", "An embedding table in the checkpoint's own blocks.");
  m.def("table", &make_table, "format"_a, "rows"_a, "columns"_a, "blocks"_a, "scale"_a.none() = nb::none(),
        "zero"_a.none() = nb::none(), "factor"_a = 1.0f,
        "A table of (rows, columns), times `factor`, that reads its rows from the arrays, which are those of pack(), without a "
        "copy and keeps them\n"
        "alive.");

  m.def(
      "philox4x32",
      [](std::tuple<uint32_t, uint32_t, uint32_t, uint32_t> counter, std::tuple<uint32_t, uint32_t> key) {
        const uint32_t c[4] = {std::get<0>(counter), std::get<1>(counter), std::get<2>(counter), std::get<3>(counter)};
        const uint32_t k[2] = {std::get<0>(key), std::get<1>(key)};
        uint32_t out[4];
        philox4x32(c, k, out);
        return std::make_tuple(out[0], out[1], out[2], out[3]);
      },
      "counter"_a, "key"_a, "One block of the Philox4x32-10 generator.");
  m.def("gumbel_noise", &gumbel_noise, "seed"_a, "position"_a, "token"_a,
        "The Gumbel noise that sampling adds to a token's logit / temperature.");
  nb::class_<Sampler>(m, "Sampler", "Keyed sampling; see csrc/sampling/sampling.h.")
      .def(nb::init<>())
      .def(
          "sample",
          [](Sampler& s, const FloatArray& logits, double temperature, int64_t top_k, double top_p, double min_p, double typical_p,
             uint64_t seed, uint64_t position) {
            return s.sample(scores_of(logits, std::nullopt), filter_of(temperature, top_k, top_p, min_p, typical_p), seed,
                            position);
          },
          "logits"_a, "temperature"_a, "top_k"_a, "top_p"_a, "min_p"_a, "typical_p"_a, "seed"_a, "position"_a,
          "The token sampled at a position; see gumbel_top_k.")
      .def(
          "gumbel_top_k",
          [](Sampler& s, const FloatArray& logits, double temperature, int64_t top_k, double top_p, double min_p, double typical_p,
             uint64_t seed, uint64_t position, size_t k, std::optional<IntArray> tokens) {
            std::vector<std::pair<int32_t, double>> found;
            for (const Candidate& c : s.gumbel_top_k(scores_of(logits, tokens),
                                                     filter_of(temperature, top_k, top_p, min_p, typical_p), seed, position, k))
              found.emplace_back(c.token, c.value);
            return found;
          },
          "logits"_a, "temperature"_a, "top_k"_a, "top_p"_a, "min_p"_a, "typical_p"_a, "seed"_a, "position"_a, "k"_a,
          "tokens"_a.none() = nb::none(),
          "The k tokens with the largest logit / temperature + noise, best first, each with that value; the first is the result\n"
          "of sample(). At temperature 0: the k largest logits. `tokens`: (n,) int32, the tokens of the logits; None for\n"
          "0, 1, 2, ... Fewer than k if fewer tokens pass the filters.")
      .def(
          "kept",
          [](Sampler& s, const FloatArray& logits, double temperature, int64_t top_k, double top_p, double min_p,
             double typical_p) {
            return s.kept(scores_of(logits, std::nullopt), filter_of(temperature, top_k, top_p, min_p, typical_p));
          },
          "logits"_a, "temperature"_a, "top_k"_a, "top_p"_a, "min_p"_a, "typical_p"_a,
          "The tokens that pass the filters, by descending logit.");
  m.def(
      "likeliest",
      [](const FloatArray& logits, size_t count, std::optional<IntArray> tokens) {
        return likeliest(scores_of(logits, tokens), count);
      },
      "logits"_a, "count"_a, "tokens"_a.none() = nb::none(),
      "The `count` most likely tokens, most likely first, with their probabilities; `tokens` as in Sampler.gumbel_top_k.");
  m.def(
      "logsumexp", [](const FloatArray& logits) { return logsumexp(scores_of(logits, std::nullopt)); }, "logits"_a,
      "log(sum(exp(logits))): a token's log-probability is its logit minus this.");

  bind_program(m);
}

}  // namespace outrider
