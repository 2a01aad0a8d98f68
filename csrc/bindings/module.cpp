// outrider.backends.cpu._native: what Python sees of the core. Long calls release the GIL.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstring>
#include <optional>
#include <stdexcept>

#include "runtime/float_environment.h"
#include "program/program.h"
#include "weights/quantize.h"
#include "sampling/sampling.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace outrider {
namespace {

using ByteArray = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using FloatArray = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using IntArray = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using FloatMatrix = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Logits = nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

Format format_named(const std::string& name) {
  for (int i = 0; i < kFormatCount; ++i)
    if (name == kFormats[i].name) return static_cast<Format>(i);
  throw std::invalid_argument("weights in format " + name + " are not supported");
}

KvFormat kv_format_named(const std::string& name) {
  for (int i = 0; i < static_cast<int>(std::size(kKvFormats)); ++i)
    if (name == kKvFormats[i]) return static_cast<KvFormat>(i);
  throw std::invalid_argument("keys and values in format " + name + " are not supported");
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

template <class T> nb::ndarray<nb::numpy, T> owned(std::vector<T> values, std::vector<size_t> shape) {
  auto* moved = new std::vector<T>(std::move(values));
  nb::capsule owner(moved, [](void* p) noexcept { delete static_cast<std::vector<T>*>(p); });
  return nb::ndarray<nb::numpy, T>(moved->data(), shape.size(), shape.data(), owner);
}

Vector vector_from(const FloatArray& a) {
  auto v = std::make_shared<std::vector<float>>((a.shape(0) + 31) / 32 * 32, 0.0f);
  std::memcpy(v->data(), a.data(), a.shape(0) * sizeof(float));
  return v;
}

std::vector<int32_t> ints(const IntArray& a) { return {a.data(), a.data() + a.shape(0)}; }

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

std::tuple<nb::ndarray<nb::numpy, int32_t>, nb::ndarray<nb::numpy, float>> run(
    Program& p, const IntArray& token, const IntArray& sequence, const IntArray& parent, const IntArray& outputs,
    std::vector<KvCache*> caches, std::optional<Logits> logits, std::optional<IntArray> embedding,
    std::optional<FloatMatrix> embeddings) {
  RowBatch batch{ints(token), ints(sequence), ints(parent), ints(outputs), std::move(caches)};
  if (embedding.has_value() != embeddings.has_value()) throw std::invalid_argument("embedding names rows of embeddings: give both");
  if (embedding) {
    batch.embedding = ints(*embedding);
    batch.embeddings = embeddings->data(), batch.embedding_count = embeddings->shape(0),
    batch.embedding_width = embeddings->shape(1);
  }
  for (const KvCache* c : batch.caches)
    if (!c) throw std::invalid_argument("a sequence has no cache");
  if (logits && (logits->shape(0) != batch.outputs.size() || static_cast<int64_t>(logits->shape(1)) != p.vocabulary()))
    throw std::invalid_argument("logits must be (outputs, vocabulary)");
  std::vector<Best> best;
  {
    nb::gil_scoped_release release;
    best = p.run(batch, logits ? logits->data() : nullptr);
  }
  std::vector<int32_t> tokens;
  std::vector<float> values;
  for (const Best& b : best) tokens.push_back(b.token), values.push_back(b.logit);
  const size_t n = tokens.size();
  return {owned(std::move(tokens), {n}), owned(std::move(values), {n})};
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

double read_bandwidth(ThreadPool& pool, size_t megabytes) {
  std::vector<uint64_t> memory(megabytes * (size_t{1} << 20) / 8, 1);
  std::atomic<uint64_t> sink{0};
  double best = 0;
  for (int sweep = 0; sweep < 5; ++sweep) {
    const auto started = std::chrono::steady_clock::now();
    pool.share(memory.size(), size_t{1} << 17, [&](size_t begin, size_t end) {
      uint64_t sum[8] = {};
      for (size_t i = begin; i < end; i += 8)
        for (int j = 0; j < 8; ++j) sum[j] += memory[i + j];
      for (uint64_t s : sum) sink += s;
    });
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - started;
    best = std::max(best, static_cast<double>(memory.size() * 8) / taken.count());
  }
  return best;
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
  m.def(
      "read_bandwidth", &read_bandwidth, "pool"_a, "megabytes"_a = 1024, nb::call_guard<nb::gil_scoped_release>(),
      "Bytes per second that all threads together read from memory: the best of five sweeps over a buffer larger than any cache.");

  nb::class_<KvShape>(m, "KvShape", "One layer's cache: heads, head size, window (0: full).")
      .def(
          "__init__",
          [](KvShape* self, int kv_heads, int head_dim, int window) {
            if (kv_heads < 1 || head_dim < 16 || head_dim % 16 || window < 0)
              throw std::invalid_argument("a KV layer needs heads, a head_dim in multiples of 16, and a window of 0 or more");
            new (self) KvShape{kv_heads, head_dim, window};
          },
          "kv_heads"_a, "head_dim"_a, "window"_a)
      .def_ro("kv_heads", &KvShape::kv_heads)
      .def_ro("head_dim", &KvShape::head_dim)
      .def_ro("window", &KvShape::window);
  nb::class_<KvCache>(m, "KvCache", "Keys and values of one sequence; see csrc/cache/kv_cache.h.")
      .def(
          "__init__",
          [](KvCache* self, const std::vector<KvShape>& layers, int64_t max_positions, int max_rows, const std::string& format) {
            new (self) KvCache(layers, max_positions, max_rows, kv_format_named(format));
          },
          "layers"_a, "max_positions"_a, "max_rows"_a, "format"_a)
      .def_prop_ro("length", &KvCache::length)
      .def_prop_ro("max_positions", &KvCache::max_positions)
      .def_prop_ro("reserved_bytes", &KvCache::reserved_bytes)
      .def_prop_ro("earliest", &KvCache::earliest)
      .def(
          "commit", [](KvCache& c, const IntArray& path) { c.commit(ints(path)); }, "path"_a,
          "Makes staged rows, ascending, the next positions.")
      .def(
          "read",
          [](const KvCache& c, int layer, int64_t begin, int64_t end) {
            if (layer < 0 || layer >= c.layers() || begin < 0 || end < begin)
              throw std::invalid_argument("no such layer or positions");
            const size_t n = static_cast<size_t>(end - begin), heads = c.shape(layer).kv_heads, dim = c.shape(layer).head_dim;
            std::vector<float> keys(n * heads * dim), values(n * heads * dim);
            for (size_t i = 0; i < n; ++i)
              c.read(layer, begin + static_cast<int64_t>(i), keys.data() + i * heads * dim, values.data() + i * heads * dim);
            return std::make_tuple(owned(std::move(keys), {n, heads, dim}), owned(std::move(values), {n, heads, dim}));
          },
          "layer"_a, "begin"_a, "end"_a,
          "Keys and values of positions begin .. end - 1, (positions, kv_heads, head_dim) float32 each.")
      .def("truncate", &KvCache::truncate, "length"_a,
           "Goes back to `length` positions; ValueError if a window no longer reaches.");

  nb::class_<Program>(m, "Program", "A recorded forward pass; see csrc/program/program.h.")
      .def(
          "__init__",
          [](Program* self, int max_rows, std::vector<KvShape> kv, const std::string& format, std::shared_ptr<ThreadPool> pool,
             bool reader, int reader_offset) {
            new (self) Program(max_rows, std::move(kv), kv_format_named(format), std::move(pool), reader, reader_offset);
          },
          "max_rows"_a, "kv"_a, "kv_format"_a, "pool"_a, "reader"_a = false, "reader_offset"_a = 0)
      .def_prop_ro("max_rows", &Program::max_rows)
      .def_prop_ro("kv_shapes", &Program::kv_shapes)
      .def_prop_ro("kv_format", [](const Program& p) { return std::string(kKvFormats[static_cast<int>(p.kv_format())]); })
      .def_prop_ro("vocabulary", &Program::vocabulary)
      .def_prop_ro("buffer_bytes", &Program::buffer_bytes)
      .def("buffer", &Program::buffer, "name"_a, "width"_a, "rows_per_row"_a = 1)
      .def("gather", &Program::gather, "table"_a, "scale"_a, "dst"_a, "embeddings"_a = false)
      .def(
          "rms_norm",
          [](Program& p, int src, std::optional<FloatArray> w, float eps, int dst) {
            p.rms_norm(src, w ? vector_from(*w) : nullptr, eps, dst);
          },
          "src"_a, "weight"_a.none(), "eps"_a, "dst"_a)
      .def(
          "head_norm",
          [](Program& p, int src, std::optional<FloatArray> w, float eps, int heads, int head_dim, int dst) {
            p.head_norm(src, w ? vector_from(*w) : nullptr, eps, heads, head_dim, dst);
          },
          "src"_a, "weight"_a.none(), "eps"_a, "heads"_a, "head_dim"_a, "dst"_a)
      .def("add", &Program::add, "src"_a, "dst"_a)
      .def("scale", &Program::scale, "dst"_a, "factor"_a)
      .def(
          "multiply", [](Program& p, int dst, const FloatArray& by) { p.multiply(dst, vector_from(by)); }, "dst"_a, "by"_a)
      .def("gelu_gate", &Program::gelu_gate, "gate"_a, "up"_a, "up_offset"_a, "dst"_a)
      .def(
          "rope_table",
          [](Program& p, const FloatArray& f, int dst) { p.rope_table(vector_from(f), static_cast<int>(f.shape(0)), dst); },
          "inverse_frequency"_a, "dst"_a)
      .def("rope", &Program::rope, "src"_a, "table"_a, "heads"_a, "head_dim"_a, "scale"_a)
      .def("store_kv", &Program::store_kv, "key"_a, "value"_a, "layer"_a)
      .def(
          "linear",
          [](Program& p, int src, std::vector<std::shared_ptr<Weight>> w, std::vector<int> dst) {
            p.linear(src, {w.begin(), w.end()}, std::move(dst));
          },
          "src"_a, "weights"_a, "dst"_a)
      .def(
          "gated_linear",
          [](Program& p, int src, std::shared_ptr<Weight> gate, std::shared_ptr<Weight> up, int dst) {
            p.gated_linear(src, gate, up, dst);
          },
          "src"_a, "gate"_a, "up"_a, "dst"_a)
      .def("attention", &Program::attention, "query"_a, "layer"_a, "heads"_a, "dst"_a)
      .def("keep_outputs", &Program::keep_outputs, "buffers"_a)
      .def(
          "head", [](Program& p, int src, std::shared_ptr<Weight> w, float softcap) { p.head(src, w, softcap); }, "src"_a,
          "weight"_a, "softcap"_a)
      .def(
          "route",
          [](Program& p, int src, int top_k, const FloatArray& scale, int dst) { p.route(src, top_k, vector_from(scale), dst); },
          "src"_a, "top_k"_a, "expert_scale"_a, "dst"_a)
      .def(
          "expert_gated_linear",
          [](Program& p, int src, int top_k, std::shared_ptr<Weight> w, int dst) { p.expert_gated_linear(src, top_k, w, dst); },
          "src"_a, "top_k"_a, "gate_up"_a, "dst"_a)
      .def(
          "expert_linear",
          [](Program& p, int src, int top_k, std::shared_ptr<Weight> w, int dst) { p.expert_linear(src, top_k, w, dst); }, "src"_a,
          "top_k"_a, "down"_a, "dst"_a)
      .def("combine_experts", &Program::combine_experts, "src"_a, "weights"_a, "top_k"_a, "dst"_a)
      .def("copy", &Program::copy, "src"_a, "dst"_a, "offset"_a)
      .def(
          "cluster_linear",
          [](Program& p, int src, int top_k, std::shared_ptr<Weight> w, int dst) { p.cluster_linear(src, top_k, w, dst); }, "src"_a,
          "top_k"_a, "clusters"_a, "dst"_a)
      .def(
          "write", [](Program& p, int id, FloatMatrix values) { p.write(id, values.data(), values.shape(0), values.shape(1)); },
          "buffer"_a, "values"_a, "Fills a buffer's first rows before a run, from (rows, width) float32.")
      .def(
          "chosen", [](const Program& p, size_t rows, size_t top_k) { return owned(p.chosen(rows, top_k), {rows, top_k}); },
          "rows"_a, "top_k"_a, "The experts or clusters that each row chose in the last run, (rows, top_k) int32.")
      .def("run", &run, "token"_a, "sequence"_a, "parent"_a, "outputs"_a, "caches"_a, "logits"_a.none() = nb::none(),
           "embedding"_a.none() = nb::none(), "embeddings"_a.none() = nb::none(),
           "One pass: returns (chosen token ids, their logits before softcap), one per output row. RuntimeError if another thread "
           "is\n"
           "in a pass of this program, its pool or one of the caches.")
      .def("warm", &Program::warm,
           "Before a run that follows soon: the pool's other threads bring its weights into the caches, until something else is "
           "run.")
      .def(
          "read",
          [](const Program& p, int id, size_t rows) { return owned(p.read(id, rows), {rows, static_cast<size_t>(p.width(id))}); },
          "buffer"_a, "rows"_a, "A copy of a buffer's first rows after a run, (rows, width) float32.")
      .def("describe", &Program::describe)
      .def("profile", &Program::profile, "on"_a)
      .def_prop_ro("seconds", &Program::seconds);
}

}  // namespace outrider
