// A forward pass as data: a flat list of kernel calls over named buffers, recorded once and replayed for any number of
// rows. Row r of every buffer belongs to row r of the pass. After `keep_outputs` only the output rows remain, and row i
// belongs to the i-th output row.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "program/batch.h"
#include "runtime/exclusive.h"
#include "kernels/kernel_table.h"
#include "program/work_stealing.h"
#include "runtime/threads.h"
#include "weights/weights.h"

namespace outrider {

// An embedding table, (rows, columns), as stored in the checkpoint (not packed); its rows are dequantized as they are gathered.
struct Table {
  Format format;
  size_t rows, columns;
  const uint8_t* blocks;
  GroupScales scales;           // (rows, groups)
  std::shared_ptr<void> owner;  // keeps the memory mapped
  float factor = 1.0f;          // of all weights
};

// float32 (max_rows, width), width padded with zeros to a multiple of 32; and a quantized copy, if a call needs one.
struct Buffer {
  Buffer(std::string name, int width, int max_rows);
  std::string name;
  int width, stride;
  std::vector<float> data;
  std::vector<ActivationGroup> groups;   // (max_rows, stride / 32)
  std::vector<ActivationDigits> digits;  // of the groups
  std::vector<QuantizedRow> quantized;   // (max_rows), pointing into groups and digits
  std::vector<ActivationPanel> panels;   // (max_rows / 16, rounded up; stride / 32) of the quantized copy, if the kernels use them
  std::vector<const float*> dense;       // (max_rows), pointing into data
  bool quantized_current = false;        // while recording: whether the quantized copy matches the data
  float quantized_scale = 0.0f;          // while recording: its static scale, 0 for dynamic ones
  float* row(int r) { return data.data() + static_cast<size_t>(r) * stride; }
  size_t group(int r, size_t column) const { return (static_cast<size_t>(r) * stride + column) / kGroup; }  // its number
  ActivationPanel* panel_at(int r, size_t column) {
    return panels.data() + (static_cast<size_t>(r / kPanelRows) * stride + column) / kGroup;
  }
  void make_quantized();
  void make_panels();  // if there is a quantized copy
};

using Weights = std::shared_ptr<const Weight>;
using Vector = std::shared_ptr<const std::vector<float>>;  // padded to 32 floats; null where a norm has no weight

// What one adapter adds to the product of a matrix: scale * b (a x) (LoRA, Hu et al. 2021).
// a: a stack of matrices of (rank, width of x / count), one for each range of columns, so that threads can share the sum over x
// and the ranges are added in their order, whatever the number of threads. b: (rows of the matrix, rank).
struct LowRank {
  int adapter;
  Weights a, b;
  float scale;
  int padded_rank() const { return static_cast<int>(a->shape().tiles) * kTile; }
};
// What the adapters add to one matrix, each at most once. offset: of its part in Program::projected_.
struct Additions {
  std::vector<LowRank> parts;
  int offset = 0;
};

// The kinds of call. Buffers are identified by number. Gather to Copy work on one row at a time: consecutive ones run together, row
// by row.
struct Gather {
  std::shared_ptr<const Table> table;
  float scale;
  int dst;
  bool embeddings;
};  // embeddings: a row that carries an embedding gets that instead
struct RmsNorm {
  int src;
  Vector weight;
  float eps;
  int dst;
};
struct HeadNorm {
  int src;
  Vector weight;
  float eps;
  int heads, head_dim, dst;
};  // normalizes each head separately
struct Quantize {
  int src;
  float scale;  // static; 0: dynamic scales per group
};
struct Add { int src, dst; };  // dst += src
struct Scale {
  int dst;
  float factor;
};
struct Multiply {
  int dst;
  Vector by;
};
struct GeluGate { int gate, up, up_offset, width, dst; };
struct RopeTable {
  Vector inverse_frequency;
  int half;
  int dst;
};  // dst: cosines, then sines
struct Rope {
  int src, table, heads, head_dim;
  float scale;
};
struct Route {
  int src;
  int experts, top_k;
  Vector expert_scale;
  int dst;
};  // dst: top_k weights; the indices go to Program::chosen()
struct CombineExperts {
  int src, weights, top_k;
  int dst;
};
struct SumProjected { std::vector<Additions> additions; };  // the second half of a Project
struct Copy { int src, dst, offset; };                      // dst[offset ...] = src
// StoreKv to Head split a row's work between threads. With `quantizes`, the thread that computed a group of the output also
// quantizes it, while the group is in that core's cache; quantized_scale is as in Quantize. A projection's result is rounded to
// the grid of its output scale, unless that is 0.
struct StoreKv { int key, value, layer, heads; };
struct Project {
  int src;
  std::vector<Additions> additions;
};  // a x of the additions of the next linear call, in rows that have an adapter; skipped in a pass without
struct Linear {
  int src;
  std::vector<Weights> weights;
  std::vector<int> dst;
  std::vector<float> output_scales;
  std::vector<Additions> additions;  // by weight; added after the rounding
};
struct GatedLinear {
  int src;
  Weights gate, up;
  int dst;
  std::vector<Additions> additions;  // of gate and up
  float gate_scale, up_scale;        // of the projections' outputs
  bool quantizes = false;
  float quantized_scale = 0.0f;
};  // gelu(gate x) * (up x)
struct ExpertGatedLinear {
  int src, top_k;
  Weights gate_up;
  int dst;
};  // dst: (rows * top_k, width)
struct ExpertLinear {
  int src, top_k;
  Weights down;
  int dst;
};  // src, dst: (rows * top_k, ...)
struct ClusterLinear {
  int src, top_k;
  Weights clusters;
  int dst;
};  // dst: (rows * top_k, cluster size)
struct Attention {
  int query, layer, heads;
  int dst;
  bool quantizes = false;
  float quantized_scale = 0.0f;
};
struct KeepOutputs { std::vector<int> buffers; };
struct Head {
  int src;
  Weights weight;
  float softcap, output_scale;
};  // softcap 0: none

using Call = std::variant<Gather, RmsNorm, HeadNorm, Quantize, Add, Scale, Multiply, GeluGate, RopeTable, Rope, Route,
                          CombineExperts, SumProjected, Copy, StoreKv, Project, Linear, GatedLinear, ExpertGatedLinear,
                          ExpertLinear, ClusterLinear, Attention, KeepOutputs, Head>;

// A kind's number in Call.
template <class Kind, class... Kinds> constexpr size_t kind_in(const std::variant<Kinds...>*) {
  size_t number = 0;
  static_cast<void>(((std::is_same_v<Kind, Kinds> || (++number, false)) || ...));
  return number;
}
template <class Kind> constexpr size_t kKind = kind_in<Kind>(static_cast<const Call*>(nullptr));
template <class Kind> constexpr bool kByRow = kKind<Kind> <= kKind<Copy>;

struct Op {
  Call call;
  bool outputs_only;  // runs on the output rows only
  bool by_row() const { return call.index() <= kKind<Copy>; }
};

// Not concurrent: a call from a second thread throws std::runtime_error (see Exclusive).
class Program {
 public:
  // cross_attention: for a drafter that attends to its target's cache. Its rows store no keys and values; each has the first
  // free position of its sequence and attends to all committed positions.
  Program(int max_rows, std::vector<KvShape> kv, KvFormat format, std::shared_ptr<ThreadPool> pool, bool cross_attention = false);

  int64_t vocabulary() const { return vocabulary_; }  // the smallest of the gathered tables and the head

  // Recording. Each method checks shapes and throws std::invalid_argument naming the buffer that does not fit.
  int buffer(const std::string& name, int width, int rows_per_row = 1);
  // embeddings: rows that carry an embedding get that instead, unscaled.
  void gather(std::shared_ptr<const Table> table, float scale, int dst, bool embeddings = false);
  void rms_norm(int src, Vector weight, float eps, int dst);
  void head_norm(int src, Vector weight, float eps, int heads, int head_dim, int dst);
  void add(int src, int dst);
  void scale(int dst, float factor);
  void multiply(int dst, Vector by);
  void gelu_gate(int gate, int up, int up_offset, int dst);
  void rope_table(Vector inverse_frequency, int half, int dst);
  void rope(int src, int table, int heads, int head_dim, float scale);
  void store_kv(int key, int value, int layer);
  // input_scale, output_scales (one per weight, or none): static scales of activations, 0 for none. Only quantized weights can have
  // an input scale. low_rank: by weight, what adapters add to its product; empty for nothing.
  void linear(int src, std::vector<Weights> weights, std::vector<int> dst, float input_scale = 0.0f,
              std::vector<float> output_scales = {}, std::vector<std::vector<LowRank>> low_rank = {});
  void gated_linear(int src, Weights gate, Weights up, int dst, float input_scale = 0.0f, float gate_scale = 0.0f,
                    float up_scale = 0.0f, std::vector<std::vector<LowRank>> low_rank = {});
  void attention(int query, int layer, int heads, int dst);
  void keep_outputs(std::vector<int> buffers);
  void head(int src, Weights weight, float softcap, float input_scale = 0.0f, float output_scale = 0.0f);
  void route(int src, int top_k, Vector expert_scale, int dst);
  void expert_gated_linear(int src, int top_k, Weights gate_up, int dst);
  void expert_linear(int src, int top_k, Weights down, int dst);
  void combine_experts(int src, int weights, int top_k, int dst);
  void copy(int src, int dst, int offset);
  void cluster_linear(int src, int top_k, Weights clusters, int dst);

  // Replaying. logits: null, or (outputs, vocabulary) float32 to fill. Returns the argmax of each output row. The rows are
  // then staged in their caches, and buffers hold the results of the output rows. Throws std::invalid_argument if the batch
  // does not fit.
  std::vector<Best> run(const RowBatch& batch, float* logits);
  // Prefetches the weights that every run reads into the CPU caches, in the order of use, on the pool's idle threads, until
  // the next job. Excludes weights that depend on the row: experts, clusters, gathered tables.
  void prefetch_weights() const;
  // A copy of a buffer's first rows after a run, (rows, width). Throws std::invalid_argument if it has fewer rows.
  std::vector<float> read(int id, size_t rows) const;
  int width(int id) const { return buffers_.at(id).width; }
  // Fills the first rows of a buffer before a run, for inputs other than tokens. Throws std::invalid_argument if they do not fit.
  void write(int id, const float* values, size_t rows, size_t width);
  // The experts or clusters that `route` chose for the first rows of the last run, (rows, top_k). Throws as read() does.
  std::vector<int32_t> chosen(size_t rows, size_t top_k) const;
  std::vector<std::string> describe() const;  // the kind of each call
  // By call: the number of tasks that the last run divided it into, at most one for each thread at a time; 0 for a call that it
  // skipped, or that ran together with the one before it.
  std::vector<size_t> tasks() const;
  // Switches profiling on or off and clears seconds(): the time of each call summed over the runs since, as measured by
  // thread 0, with its wait for the others at the end of the call.
  void profile(bool on);
  std::vector<double> seconds() const;

 private:
  friend class Executor;
  Exclusive exclusive() const { return {in_use_, "the program"}; }
  Buffer& checked(int id, int width, const char* role);
  void quantize_if_needed(int src, const Weights& weight, float scale = 0.0f);
  bool last_call_quantizes(int src, float scale);
  std::vector<Additions> project(int src, const std::vector<Weights>& weights, std::vector<std::vector<LowRank>> low_rank);
  void add_to_prefetch(const Weights& weight);
  void make_attention_scratch(int heads, int head_dim);
  void push(Call call);

  int max_rows_;
  std::vector<KvShape> kv_;
  KvFormat kv_format_;
  bool cross_attention_, outputs_only_ = false, profiling_ = false;
  std::shared_ptr<ThreadPool> pool_;
  int64_t vocabulary_ = 0;
  size_t embedding_width_ = 0;  // of embeddings that rows may carry; 0 if they may not
  std::vector<Buffer> buffers_;
  std::vector<Op> ops_;
  // What prefetch_weights() reads. Copied on write: background threads may be reading it.
  std::shared_ptr<const std::vector<Weights>> prefetched_ = std::make_shared<std::vector<Weights>>();
  std::vector<double> seconds_;
  Pass pass_;
  std::vector<std::vector<Best>> thread_best_;                        // (threads, max_rows)
  std::vector<std::vector<float>> tile_scratch_, expert_scratch_;     // by thread
  std::vector<std::unique_ptr<AttentionScratch>> attention_scratch_;  // by thread
  std::unique_ptr<float[]> attention_parts_;                          // see AttentionWork; untouched memory costs nothing
  int attention_head_dim_ = 0;                                        // the largest
  std::vector<std::atomic<int64_t>> attention_done_;                  // tasks done, by block of queries and KV head
  std::vector<int32_t> chosen_;                                       // (max_rows * top_k): experts or clusters
  int adapters_ = 0;
  size_t projected_width_ = 0;
  std::vector<float> projected_;                                                      // (max_rows, projected_width_): see Project
  std::vector<std::vector<const float*>> adapted_rows_;                               // by thread: rows of one adapter
  std::vector<std::pair<std::vector<uint8_t>, std::vector<size_t>>> chosen_experts_;  // by thread: see each_expert
  mutable std::atomic_flag in_use_;
  std::unique_ptr<WorkStealing> work_stealing_;
};

}  // namespace outrider
