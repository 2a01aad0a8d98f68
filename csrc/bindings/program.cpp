// Python bindings of the key-value cache and of recorded programs.
#include "program/program.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <cstring>
#include <iterator>
#include <optional>
#include <stdexcept>

#include "bindings/arrays.h"

using namespace nanobind::literals;

namespace outrider {
namespace {

KvFormat kv_format_named(const std::string& name) {
  for (int i = 0; i < static_cast<int>(std::size(kKvFormats)); ++i)
    if (name == kKvFormats[i]) return static_cast<KvFormat>(i);
  throw std::invalid_argument("keys and values in format " + name + " are not supported: use float32, float16 or int8");
}

Vector vector_from(const FloatArray& a) {
  auto v = std::make_shared<std::vector<float>>((a.shape(0) + 31) / 32 * 32, 0.0f);
  std::memcpy(v->data(), a.data(), a.shape(0) * sizeof(float));
  return v;
}

std::tuple<nb::ndarray<nb::numpy, int32_t>, nb::ndarray<nb::numpy, float>> run(
    Program& p, const IntArray& token, const IntArray& sequence, const IntArray& parent, const IntArray& outputs,
    std::vector<KvCache*> caches, std::optional<Logits> logits, std::optional<IntArray> embedding,
    std::optional<FloatMatrix> embeddings, std::optional<IntArray> adapter) {
  RowBatch batch{ints(token), ints(sequence), ints(parent), ints(outputs), std::move(caches)};
  if (embedding.has_value() != embeddings.has_value())
    throw std::invalid_argument("embedding (indices) and embeddings (values) must be given together");
  if (embedding) {
    batch.embedding = ints(*embedding);
    batch.embeddings = embeddings->data(), batch.embedding_count = embeddings->shape(0),
    batch.embedding_width = embeddings->shape(1);
  }
  if (adapter) batch.adapter = ints(*adapter);
  for (const KvCache* c : batch.caches)
    if (!c) throw std::invalid_argument("a sequence has no cache");
  if (logits && (logits->shape(0) != batch.outputs.size() || static_cast<int64_t>(logits->shape(1)) != p.vocabulary()))
    throw std::invalid_argument("logits must have the shape (outputs, vocabulary)");
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

}  // namespace

void bind_program(nb::module_& m) {
  nb::class_<KvShape>(
      m, "KvShape",
      "The shape of one cache layer. `window`: positions that a sliding-window layer attends to, 0 for full attention.")
      .def(
          "__init__",
          [](KvShape* self, int kv_heads, int head_dim, int window) {
            if (kv_heads < 1 || head_dim < 16 || head_dim % 16 || window < 0)
              throw std::invalid_argument("a KV layer needs kv_heads >= 1, a head_dim that is a multiple of 16, and a window >= 0");
            new (self) KvShape{kv_heads, head_dim, window};
          },
          "kv_heads"_a, "head_dim"_a, "window"_a)
      .def_ro("kv_heads", &KvShape::kv_heads)
      .def_ro("head_dim", &KvShape::head_dim)
      .def_ro("window", &KvShape::window);
  nb::class_<KvPage>(m, "KvPage", "A counted reference to one page of keys and values; see csrc/cache/kv_pages.h.")
      .def_prop_ro("group", &KvPage::group)
      .def_prop_ro(
          "data",
          [](nb::handle_t<KvPage> self) {
            const KvPage& page = nb::cast<const KvPage&>(self);
            return nb::ndarray<nb::numpy, const uint8_t, nb::ndim<1>>(page.data(), {page.bytes()}, self);
          },
          "Its bytes, (bytes) uint8. Those of positions that no sequence has committed yet may change.");
  nb::class_<KvPages>(m, "KvPages", "The layout of pages and their memory; see csrc/cache/kv_pages.h. Safe for any thread.")
      .def(nb::new_([](const std::vector<KvShape>& layers, const std::string& format) {
             return std::make_shared<KvPages>(layers, kv_format_named(format));
           }),
           "layers"_a, "format"_a)
      .def_prop_ro(
          "windows",
          [](const KvPages& p) {
            std::vector<int> windows;
            for (int g = 0; g < p.groups(); ++g) windows.push_back(p.window(g));
            return windows;
          },
          "The window of each group of layers; 0 for full attention.")
      .def("page_bytes", &KvPages::page_bytes, "group"_a)
      .def_prop_ro("bytes_in_use", &KvPages::bytes_in_use, "Bytes of all pages that exist.")
      .def(
          "load", [](KvPages& p, int group, const ByteArray& data) { return p.load(group, data.data(), data.shape(0)); }, "group"_a,
          "data"_a, "A page with the bytes of another one. Raises ValueError if their number is wrong.");
  m.attr("PAGE_POSITIONS") = kPagePositions;
  nb::class_<KvCache>(
      m, "KvCache",
      "Keys and values of one sequence; see csrc/cache/kv_cache.h. Raises RuntimeError if two threads use it at the same time.")
      .def(nb::init<std::shared_ptr<KvPages>, int64_t, int>(), "pages"_a, "max_positions"_a, "max_rows"_a)
      .def_prop_ro("length", &KvCache::length)
      .def("page", &KvCache::page, "group"_a, "index"_a, nb::sig("def page(self, group: int, index: int) -> KvPage | None"),
           "The page of a group that holds positions index * PAGE_POSITIONS and on, or None.")
      .def("drop", &KvCache::drop, "group"_a, "index"_a,
           "Releases a page. Raises ValueError unless it lies before the positions that the next one attends to.")
      .def("resume", &KvCache::resume, "groups"_a, "length"_a,
           nb::sig("def resume(self, groups: Sequence[Sequence[KvPage | None]], length: int) -> None"),
           nb::sig("def resume(self, groups: Sequence[Sequence[KvPage | None]], length: int) -> None"),
           "Gives an empty sequence the first `length` positions of others: by group, their pages, None where a window does not\n"
           "reach. Copies the last page if it is not full. Raises ValueError if one is missing.")
      .def(
          "commit", [](KvCache& c, const IntArray& path) { c.commit(ints(path)); }, "path"_a,
          "Turns a path of staged rows, ascending, into the next positions. Raises ValueError if a row is not staged.")
      .def(
          "read",
          [](const KvCache& c, int layer, int64_t begin, int64_t end) {
            if (layer < 0 || layer >= c.pages().layers() || begin < 0 || end < begin)
              throw std::invalid_argument("the cache has no layer " + std::to_string(layer) + " or no positions " +
                                          std::to_string(begin) + " .. " + std::to_string(end - 1));
            const size_t n = static_cast<size_t>(end - begin), heads = c.pages().shape(layer).kv_heads,
                         dim = c.pages().shape(layer).head_dim;
            std::vector<float> keys(n * heads * dim), values(n * heads * dim);
            for (size_t i = 0; i < n; ++i)
              c.read(layer, begin + static_cast<int64_t>(i), keys.data() + i * heads * dim, values.data() + i * heads * dim);
            return std::make_tuple(owned(std::move(keys), {n, heads, dim}), owned(std::move(values), {n, heads, dim}));
          },
          "layer"_a, "begin"_a, "end"_a,
          "Keys and values of positions begin .. end - 1, (positions, kv_heads, head_dim) float32 each. Raises ValueError if the\n"
          "layer does not hold them.")
      .def("truncate", &KvCache::truncate, "length"_a,
           "Shortens the sequence to `length` positions. Raises ValueError if it needs a page that was dropped.");

  nb::class_<LowRank>(m, "LowRank", "What one adapter adds to the product of a matrix; see csrc/program/program.h.")
      .def(
          "__init__",
          [](LowRank* self, int adapter, std::shared_ptr<Weight> a, std::shared_ptr<Weight> b, float scale) {
            new (self) LowRank{adapter, std::move(a), std::move(b), scale};
          },
          "adapter"_a, "a"_a, "b"_a, "scale"_a);
  nb::class_<Program>(m, "Program", "A recorded forward pass; see csrc/program/program.h.")
      .def(
          "__init__",
          [](Program* self, int max_rows, std::vector<KvShape> kv, const std::string& format, std::shared_ptr<ThreadPool> pool,
             bool cross_attention) {
            new (self) Program(max_rows, std::move(kv), kv_format_named(format), std::move(pool), cross_attention);
          },
          "max_rows"_a, "kv"_a, "kv_format"_a, "pool"_a, "cross_attention"_a = false)
      .def_prop_ro("vocabulary", &Program::vocabulary)
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
          [](Program& p, int src, std::vector<std::shared_ptr<Weight>> w, std::vector<int> dst, float input_scale,
             std::vector<float> output_scales, std::vector<std::vector<LowRank>> low_rank) {
            p.linear(src, {w.begin(), w.end()}, std::move(dst), input_scale, std::move(output_scales), std::move(low_rank));
          },
          "src"_a, "weights"_a, "dst"_a, "input_scale"_a = 0.0f, "output_scales"_a = std::vector<float>(),
          "low_rank"_a = std::vector<std::vector<LowRank>>{},
          "Projections of one input. `input_scale`, `output_scales`: static scales of activations; `low_rank`: what adapters add; "
          "see "
          "csrc/program/program.h.")
      .def(
          "gated_linear",
          [](Program& p, int src, std::shared_ptr<Weight> gate, std::shared_ptr<Weight> up, int dst, float input_scale,
             float gate_scale, float up_scale, std::vector<std::vector<LowRank>> low_rank) {
            p.gated_linear(src, gate, up, dst, input_scale, gate_scale, up_scale, std::move(low_rank));
          },
          "src"_a, "gate"_a, "up"_a, "dst"_a, "input_scale"_a = 0.0f, "gate_scale"_a = 0.0f, "up_scale"_a = 0.0f,
          "low_rank"_a = std::vector<std::vector<LowRank>>{})
      .def("attention", &Program::attention, "query"_a, "layer"_a, "heads"_a, "dst"_a)
      .def("keep_outputs", &Program::keep_outputs, "buffers"_a)
      .def(
          "head",
          [](Program& p, int src, std::shared_ptr<Weight> w, float softcap, float input_scale, float output_scale) {
            p.head(src, w, softcap, input_scale, output_scale);
          },
          "src"_a, "weight"_a, "softcap"_a, "input_scale"_a = 0.0f, "output_scale"_a = 0.0f)
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
          "buffer"_a, "values"_a,
          "Fills a buffer's first rows before a run, (rows, width) float32. Raises ValueError if they do not fit.")
      .def(
          "chosen", [](const Program& p, size_t rows, size_t top_k) { return owned(p.chosen(rows, top_k), {rows, top_k}); },
          "rows"_a, "top_k"_a, "The experts or clusters chosen for the first rows of the last run, (rows, top_k) int32.")
      .def("run", &run, "token"_a, "sequence"_a, "parent"_a, "outputs"_a, "caches"_a, "logits"_a.none() = nb::none(),
           "embedding"_a.none() = nb::none(), "embeddings"_a.none() = nb::none(), "adapter"_a.none() = nb::none(),
           "Runs one pass and stages its rows. Returns the argmax token of each output row and its logit before softcap,\n"
           "(outputs,) int32 and float32. Raises ValueError if the rows do not fit, RuntimeError if another thread uses\n"
           "this program, its pool or one of the caches.")
      .def("prefetch_weights", &Program::prefetch_weights,
           "Prefetches the weights that every run reads into the CPU caches on the pool's idle threads, until the next run.")
      .def(
          "read",
          [](const Program& p, int id, size_t rows) { return owned(p.read(id, rows), {rows, static_cast<size_t>(p.width(id))}); },
          "buffer"_a, "rows"_a,
          "A copy of a buffer's first rows after a run, (rows, width) float32. Raises ValueError if it has fewer rows.")
      .def("describe", &Program::describe, "The kind of each call.")
      .def("profile", &Program::profile, "on"_a, "Switches profiling on or off and clears `seconds`.")
      .def_prop_ro(
          "tasks", &Program::tasks,
          "Number of tasks that the last run divided each call into; 0 for one that it skipped or ran with the one before.")
      .def_prop_ro("seconds", &Program::seconds, "Seconds of each call, summed over the runs since profile(True).");
}

}  // namespace outrider
