// outrider.backends.cpu._native: what Python sees of the core. Long calls release the GIL.
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

Format format_named(const std::string& name) {
  for (int i = 0; i < kFormatCount; ++i)
    if (name == kFormats[i].name) return static_cast<Format>(i);
  throw std::invalid_argument("weights in format " + name + " are not supported");
}

void check_blocks(Format f, size_t rows, size_t columns, size_t bytes) {
  if (columns == 0 || columns % info(f).block)
    throw std::invalid_argument(std::string(info(f).name) + " rows hold multiples of " + std::to_string(info(f).block) +
                                " weights, not " + std::to_string(columns));
  if (bytes != rows * row_bytes(f, columns))
    throw std::invalid_argument("a " + std::string(info(f).name) + " matrix of " + std::to_string(rows) + " x " +
                                std::to_string(columns) + " takes " + std::to_string(rows * row_bytes(f, columns)) +
                                " bytes, not " + std::to_string(bytes));
}

std::shared_ptr<Weight> make_weight(const std::string& format, size_t rows, size_t columns, const ByteArray& blocks,
                                    ThreadPool& pool, size_t count) {
  const Format f = format_named(format);
  check_blocks(f, count * rows, columns, blocks.shape(0));
  nb::gil_scoped_release release;
  return std::make_shared<Weight>(f, count, rows, columns, blocks.data(), pool);
}

std::shared_ptr<Table> make_table(const std::string& format, size_t rows, size_t columns, nb::object blocks) {
  const Format f = format_named(format);
  auto view = nb::cast<ByteArray>(blocks);
  check_blocks(f, rows, columns, view.shape(0));
  auto* kept = new nb::object(std::move(blocks));
  std::shared_ptr<void> owner(kept, [](void* p) {
    nb::gil_scoped_acquire acquire;
    delete static_cast<nb::object*>(p);
  });
  return std::make_shared<Table>(Table{f, rows, columns, view.data(), std::move(owner)});
}

nb::ndarray<nb::numpy, float> dequantize(const std::string& format, size_t rows, size_t columns, const ByteArray& blocks) {
  const DefaultFloatEnvironment environment;
  const Format f = format_named(format);
  check_blocks(f, rows, columns, blocks.shape(0));
  std::vector<float> out(rows * columns);
  for (size_t r = 0; r < rows; ++r) dequantize_row(f, blocks.data() + r * row_bytes(f, columns), columns, out.data() + r * columns);
  return owned(std::move(out), {rows, columns});
}

std::tuple<nb::ndarray<nb::numpy, uint8_t>, double, double> quantize(const std::string& to, const std::string& format, size_t rows,
                                                                     size_t columns, const ByteArray& blocks, ThreadPool& pool) {
  const Format target = format_named(to), source = format_named(format);
  if ((target != Format::Q4_0 && target != Format::Q8_0) || columns % 32)
    throw std::invalid_argument("weights are quantized to Q4_0 or Q8_0, in rows of a multiple of 32");
  check_blocks(source, rows, columns, blocks.shape(0));
  std::vector<uint8_t> out(rows * row_bytes(target, columns));
  std::vector<QuantizationError> errors(rows);
  {
    nb::gil_scoped_release release;
    pool.share(rows, std::max<size_t>(1, (1 << 16) / columns), [&](size_t begin, size_t end) {
      std::vector<float> row(columns);
      for (size_t r = begin; r < end; ++r) {
        dequantize_row(source, blocks.data() + r * row_bytes(source, columns), columns, row.data());
        errors[r] = quantize_weights(target, row.data(), columns, out.data() + r * row_bytes(target, columns));
      }
    });
  }
  double error = 0, total = 0;
  for (const QuantizationError& e : errors) {
    if (!e.finite) throw std::domain_error("a weight is not a finite number that a float16 scale can hold");
    error += e.error, total += e.total;
  }
  const size_t size = out.size();
  return {owned(std::move(out), {size}), error, total};
}

Scores scores_of(const FloatArray& logits, const std::optional<IntArray>& tokens) {
  if (logits.shape(0) == 0) throw std::invalid_argument("there are no logits to choose from");
  if (tokens && tokens->shape(0) != logits.shape(0)) throw std::invalid_argument("as many tokens as logits are needed");
  return {logits.data(), logits.shape(0), tokens ? tokens->data() : nullptr};
}

SamplingFilter filter_of(double temperature, int64_t top_k, double top_p, double min_p, double typical_p) {
  if (!(temperature >= 0) || std::isinf(temperature)) throw std::invalid_argument("a temperature must be finite and not below 0");
  return {temperature, top_k, top_p, min_p, typical_p};
}

}  // namespace

NB_MODULE(_native, m) {
  m.doc() = "outrider's native core";
  nb::set_leak_warnings(false);  // a thread that outlives the interpreter holds objects: no concern of a person at the end
  m.def(
      "instruction_sets",
      [] {
        size_t count;
        const KernelTable* const* tables = available_kernels(&count);
        std::vector<std::string> names;
        for (size_t i = 0; i < count; ++i) names.emplace_back(tables[i]->name);
        return names;
      },
      "The instruction sets that this build holds and this processor runs, best first.");
  m.def("instruction_set", [] { return std::string(active_kernels().name); }, "The instruction set in use.");
  m.def(
      "choose_instruction_set",
      [](const std::string& name) {
        if (!choose_kernels(name.c_str())) throw std::invalid_argument("instruction set " + name + " is not available here");
      },
      "name"_a, "Uses another instruction set from now on. Raises ValueError if there is none of that name.");
  m.def("dequantize", &dequantize, "format"_a, "rows"_a, "columns"_a, "blocks"_a, "Float32 (rows, columns) of checkpoint blocks.");

  nb::class_<ThreadPool>(m, "ThreadPool", "Threads that run every pass together.")
      .def(
          "__init__",
          [](ThreadPool* self, int threads) {
            if (threads < 1 || threads > 256)
              throw std::invalid_argument("threads must lie between 1 and 256, not " + std::to_string(threads));
            new (self) ThreadPool(threads);
          },
          "threads"_a)
      .def_prop_ro("size", &ThreadPool::size);

  nb::class_<Weight>(m, "Weight", "A packed matrix (or `count` of them) for the linear kernels.")
      .def_prop_ro("rows", [](const Weight& w) { return w.shape().rows; })
      .def_prop_ro("columns", [](const Weight& w) { return w.shape().columns; })
      .def_prop_ro("count", &Weight::count)
      .def_prop_ro("format", [](const Weight& w) { return std::string(info(w.shape().format).name); })
      .def_prop_ro("nbytes", &Weight::bytes);
  m.def("quantize", &quantize, "to"_a, "format"_a, "rows"_a, "columns"_a, "blocks"_a, "pool"_a,
        "(uint8 blocks of `to`, sum of squared errors, sum of squares); ValueError if a weight is not finite.");
  m.def("pack", &make_weight, "format"_a, "rows"_a, "columns"_a, "blocks"_a, "pool"_a, "count"_a = 1,
        "Repacks checkpoint blocks (count * rows, columns) into tiles of 16 rows; no value changes. See csrc/weights/layout.h.");
  nb::class_<Table>(m, "Table", "Rows gathered as the checkpoint stores them.")
      .def_prop_ro("rows", [](const Table& t) { return t.rows; })
      .def_prop_ro("columns", [](const Table& t) { return t.columns; });
  m.def("table", &make_table, "format"_a, "rows"_a, "columns"_a, "blocks"_a, "Keeps `blocks` alive and reads rows from it.");

  m.def(
      "philox4x32",
      [](std::tuple<uint32_t, uint32_t, uint32_t, uint32_t> counter, std::tuple<uint32_t, uint32_t> key) {
        const uint32_t c[4] = {std::get<0>(counter), std::get<1>(counter), std::get<2>(counter), std::get<3>(counter)};
        const uint32_t k[2] = {std::get<0>(key), std::get<1>(key)};
        uint32_t out[4];
        philox4x32(c, k, out);
        return std::make_tuple(out[0], out[1], out[2], out[3]);
      },
      "counter"_a, "key"_a, "Philox4x32-10, for its test vectors.");
  m.def("gumbel_noise", &gumbel_noise, "seed"_a, "position"_a, "token"_a, "The noise that sampling adds to a token's logit.");
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
          "The token drawn at a position.")
      .def(
          "foremost",
          [](Sampler& s, const FloatArray& logits, double temperature, int64_t top_k, double top_p, double min_p, double typical_p,
             uint64_t seed, uint64_t position, size_t count, std::optional<IntArray> tokens) {
            std::vector<std::pair<int32_t, double>> found;
            for (const Contender& c : s.foremost(scores_of(logits, tokens), filter_of(temperature, top_k, top_p, min_p, typical_p),
                                                 seed, position, count))
              found.emplace_back(c.token, c.value);
            return found;
          },
          "logits"_a, "temperature"_a, "top_k"_a, "top_p"_a, "min_p"_a, "typical_p"_a, "seed"_a, "position"_a, "count"_a,
          "tokens"_a.none() = nb::none(),
          "The token that sample() draws and the runners-up, each with its logit / temperature + noise; `tokens` names those\n"
          "that the logits belong to, None for all from 0 on.")
      .def(
          "kept",
          [](Sampler& s, const FloatArray& logits, double temperature, int64_t top_k, double top_p, double min_p,
             double typical_p) {
            return s.kept(scores_of(logits, std::nullopt), filter_of(temperature, top_k, top_p, min_p, typical_p));
          },
          "logits"_a, "temperature"_a, "top_k"_a, "top_p"_a, "min_p"_a, "typical_p"_a,
          "The tokens that the filters keep, likeliest first.");
  m.def(
      "likeliest",
      [](const FloatArray& logits, size_t count, std::optional<IntArray> tokens) {
        return likeliest(scores_of(logits, tokens), count);
      },
      "logits"_a, "count"_a, "tokens"_a.none() = nb::none(),
      "The `count` likeliest tokens and their probabilities, likeliest first; `tokens` as in Sampler.foremost.");
  m.def(
      "log_total", [](const FloatArray& logits) { return log_total(scores_of(logits, std::nullopt)); }, "logits"_a,
      "log(sum(exp(logits))): what a logit lies above its log-probability by.");

  bind_program(m);
}

}  // namespace outrider
