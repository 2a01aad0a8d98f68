// A model's forward pass as data: a flat list of kernel calls over named buffers, recorded once, replayed for any
// number of rows. Row r of every buffer belongs to row r of the pass, until `keep_outputs`, after which only the rows
// whose result is wanted go on ("narrow").
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "program/batch.h"
#include "runtime/exclusive.h"
#include "kernels/kernel_table.h"
#include "program/shares.h"
#include "runtime/threads.h"
#include "weights/weights.h"

namespace outrider {

// A table whose rows are gathered as the checkpoint stores them (embeddings): (rows, columns), not packed.
struct Table {
  Format format;
  size_t rows, columns;
  const uint8_t* blocks;
  std::shared_ptr<void> owner;  // keeps the memory mapped
};

// float32 (max_rows, width), width padded to 32 with zeros; quantized beside it once something asks for that.
struct Buffer {
  Buffer(std::string name, int width, int max_rows);
  std::string name;
  int width, stride;
  std::vector<float> data;
  std::vector<ActivationGroup> groups;  // (max_rows, stride / 32)
  std::vector<QuantizedRow> quantized;  // (max_rows), pointing into groups
  std::vector<const float*> dense;      // (max_rows), pointing into data
  bool fresh = false;                   // while recording: the quantized copy is that of the data
  float* row(int r) { return data.data() + static_cast<size_t>(r) * stride; }
  ActivationGroup* group_at(int r, size_t column) { return groups.data() + (static_cast<size_t>(r) * stride + column) / kGroup; }
  void make_quantized();
};

using Weights = std::shared_ptr<const Weight>;
using Vector = std::shared_ptr<const std::vector<float>>;  // padded to 32 floats; null where a norm has no weight

// The kinds of call. Buffers are named by number. "One row at a time" kinds need no barrier between each other.
struct Gather {
  std::shared_ptr<const Table> table;
  float scale;
  int dst;
  bool embeddings;
};  // or the row's own embedding
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
};  // each head on its own
struct Quantize { int src; };
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
};  // dst: top_k weights; ids aside
struct CombineExperts {
  int src, weights, top_k;
  int dst;
};
struct Copy { int src, dst, offset; };  // dst[offset ...] = src
// Shared among threads. Where `quantizes`, the thread that made a group of the output quantizes it too, while it is at hand.
struct StoreKv { int key, value, layer, heads; };
struct Linear {
  int src;
  std::vector<Weights> weights;
  std::vector<int> dst;
};
struct GatedLinear {
  int src;
  Weights gate, up;
  int dst;
  bool quantizes = false;
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
};
struct KeepOutputs { std::vector<int> buffers; };
struct Head {
  int src;
  Weights weight;
  float softcap;
};  // softcap 0: none

using Call =
    std::variant<Gather, RmsNorm, HeadNorm, Quantize, Add, Scale, Multiply, GeluGate, RopeTable, Rope, Route, CombineExperts, Copy,
                 StoreKv, Linear, GatedLinear, ExpertGatedLinear, ExpertLinear, ClusterLinear, Attention, KeepOutputs, Head>;

struct Op {
  Call call;
  bool narrow;  // runs on the output rows only
};

// One call at a time: a second thread is refused with std::runtime_error (see Exclusive).
class Program {
 public:
  // reader: the rows make no keys and values of their own. Each stands at one position, the first free one of its
  // sequence (plus `reader_offset`), and sees all that is committed: a drafter.
  Program(int max_rows, std::vector<KvShape> kv, KvFormat format, std::shared_ptr<ThreadPool> pool, bool reader = false,
          int reader_offset = 0);

  int max_rows() const { return max_rows_; }
  const std::vector<KvShape>& kv_shapes() const { return kv_; }
  KvFormat kv_format() const { return kv_format_; }
  int64_t vocabulary() const { return vocabulary_; }

  // Recording. Each checks shapes and throws std::invalid_argument naming the buffer that does not fit.
  int buffer(const std::string& name, int width, int rows_per_row = 1);
  // embeddings: rows that carry an embedding get that instead.
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
  void linear(int src, std::vector<Weights> weights, std::vector<int> dst);
  void gated_linear(int src, Weights gate, Weights up, int dst);
  void attention(int query, int layer, int heads, int dst);
  void keep_outputs(std::vector<int> buffers);
  void head(int src, Weights weight, float softcap);
  void route(int src, int top_k, Vector expert_scale, int dst);
  void expert_gated_linear(int src, int top_k, Weights gate_up, int dst);
  void expert_linear(int src, int top_k, Weights down, int dst);
  void combine_experts(int src, int weights, int top_k, int dst);
  void copy(int src, int dst, int offset);
  void cluster_linear(int src, int top_k, Weights clusters, int dst);

  // Replaying. logits: null or (outputs, vocabulary) float32. Returns the choice of each output row; afterwards the rows
  // are staged in their caches, and buffers hold the results, output row by output row.
  std::vector<Best> run(const RowBatch& batch, float* logits);
  // Before a run that follows soon: the pool's other threads bring the weights that every run reads into the caches, in
  // their order, until something else is run. What a row picks (experts, clusters, a table's rows) is not known yet.
  void warm() const;
  // A copy of a buffer's first rows after a run, (rows, width); throws std::invalid_argument if it does not have them.
  std::vector<float> read(int id, size_t rows) const;
  int width(int id) const { return buffers_.at(id).width; }
  // Fills the first rows of a buffer before a run: an input that is no token.
  void write(int id, const float* values, size_t rows, size_t width);
  // The experts or clusters that `route` chose for the first rows of the last run, (rows, top_k); throws as read().
  std::vector<int32_t> chosen(size_t rows, size_t top_k) const;
  std::vector<std::string> describe() const;
  size_t buffer_bytes() const;
  // Seconds spent in each call of the last runs, summed, if profiling is on; thread 0's view, barriers included.
  void profile(bool on);
  std::vector<double> seconds() const;

 private:
  friend class Executor;
  Exclusive hold() const { return {in_use_, "the program"}; }
  Buffer& checked(int id, int width, const char* role);
  void quantize_if_needed(int src, const Weights& weight);
  bool last_call_quantizes(int src);
  void read_always(const Weights& weight);
  void push(Call call);

  int max_rows_;
  std::vector<KvShape> kv_;
  KvFormat kv_format_;
  bool reader_, narrow_ = false, profiling_ = false;
  int reader_offset_;
  std::shared_ptr<ThreadPool> pool_;
  int64_t vocabulary_ = 0;
  size_t embedding_width_ = 0;  // of rows that carry one; 0 if none may
  std::vector<Buffer> buffers_;
  std::vector<Op> ops_;
  // Replaced, never changed: threads of warm() may be reading it.
  std::shared_ptr<const std::vector<Weights>> always_read_ = std::make_shared<std::vector<Weights>>();  // in their order
  std::vector<double> seconds_;
  Pass pass_;
  std::vector<std::vector<Best>> thread_best_;                    // (threads, max_rows)
  std::vector<std::vector<float>> tile_scratch_, score_scratch_;  // by thread
  std::vector<int32_t> expert_of_;                                // (max_rows * top_k): the chosen experts
  mutable std::atomic_flag in_use_;
  std::unique_ptr<Shares> shares_;
  bool odd_pass_ = false;
};

}  // namespace outrider
