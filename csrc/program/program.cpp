// Recording: shapes are checked here, once, so that replaying need not.
#include "program/program.h"

#include <algorithm>
#include <stdexcept>

namespace outrider {
namespace {

int padded(int width) { return (width + 31) / 32 * 32; }

[[noreturn]] void misfit(const std::string& what) { throw std::invalid_argument("cannot record: " + what); }

}  // namespace

Buffer::Buffer(std::string n, int w, int rows) : name(std::move(n)), width(w), stride(padded(w)) {
  data.assign(static_cast<size_t>(rows) * stride, 0.0f);
  for (int r = 0; r < rows; ++r) dense.push_back(row(r));
}

void Buffer::make_quantized() {
  if (!quantized.empty()) return;
  groups.assign(dense.size() * (stride / kGroup), ActivationGroup{});
  for (size_t r = 0; r < dense.size(); ++r) quantized.push_back(group_at(static_cast<int>(r), 0));
}

Program::Program(int max_rows, std::vector<KvShape> kv, KvFormat format, std::shared_ptr<ThreadPool> pool, bool reader,
                 int reader_offset)
    : max_rows_(max_rows),
      kv_(std::move(kv)),
      kv_format_(format),
      reader_(reader),
      reader_offset_(reader_offset),
      pool_(std::move(pool)) {
  if (max_rows_ < 1) misfit("a program needs room for at least one row");
  thread_best_.assign(pool_->size(), std::vector<Best>(max_rows_));
  tile_scratch_.assign(pool_->size(), std::vector<float>(static_cast<size_t>(2 * max_rows_) * kTile));
  score_scratch_.resize(pool_->size());
}

int Program::buffer(const std::string& name, int width, int rows_per_row) {
  const Exclusive held = hold();
  if (width < 1) misfit("buffer " + name + " has no width");
  buffers_.emplace_back(name, width, max_rows_ * rows_per_row);
  return static_cast<int>(buffers_.size()) - 1;
}

Buffer& Program::checked(int id, int width, const char* role) {
  if (id < 0 || static_cast<size_t>(id) >= buffers_.size()) misfit(std::string("there is no buffer for ") + role);
  Buffer& b = buffers_[id];
  if (width != 0 && b.width != width)
    misfit(std::string(role) + " '" + b.name + "' is " + std::to_string(b.width) + " wide, expected " + std::to_string(width));
  return b;
}

void Program::read_always(const Weights& weight) {
  auto more = std::make_shared<std::vector<Weights>>(*always_read_);
  more->push_back(weight);
  always_read_ = std::move(more);
}

void Program::push(Call call) {
  const Exclusive held = hold();
  ops_.push_back({std::move(call), narrow_});
  seconds_.resize(ops_.size());
  shares_ = std::make_unique<Shares>(pool_->size(), ops_.size());
}

void Program::quantize_if_needed(int src, const Weights& weight) {
  Buffer& b = checked(src, static_cast<int>(weight->shape().columns), "input");
  if (!weight->quantized() || b.fresh) return;
  b.make_quantized();
  if (!last_call_quantizes(src)) push(Quantize{src});
  b.fresh = true;
}

// Rather than in a call of its own, which costs a meeting of the threads, and takes each row to one of them and back.
bool Program::last_call_quantizes(int src) {
  if (ops_.empty()) return false;
  Call& last = ops_.back().call;
  if (auto* gated = std::get_if<GatedLinear>(&last); gated && gated->dst == src) return gated->quantizes = true;
  if (auto* attention = std::get_if<Attention>(&last); attention && attention->dst == src)
    return attention->quantizes = kv_[attention->layer].head_dim % kGroup == 0;
  return false;
}

void Program::gather(std::shared_ptr<const Table> table, float scale, int dst, bool embeddings) {
  if (embeddings) embedding_width_ = table->columns;
  checked(dst, static_cast<int>(table->columns), "gathered row").fresh = false;
  if (vocabulary_ == 0 || static_cast<int64_t>(table->rows) < vocabulary_) vocabulary_ = static_cast<int64_t>(table->rows);
  push(Gather{std::move(table), scale, dst, embeddings});
}

void Program::rms_norm(int src, Vector weight, float eps, int dst) {
  const int width = checked(src, 0, "norm input").width;
  if (width % 16) misfit("a norm over " + std::to_string(width) + " values: widths must be multiples of 16");
  if (weight && static_cast<int>(weight->size()) != padded(width)) misfit("a norm weight does not have the width of its input");
  checked(dst, width, "norm output").fresh = false;
  push(RmsNorm{src, std::move(weight), eps, dst});
}

void Program::head_norm(int src, Vector weight, float eps, int heads, int head_dim, int dst) {
  checked(src, heads * head_dim, "heads");
  checked(dst, heads * head_dim, "normed heads").fresh = false;
  if (head_dim % 32) misfit("head_dim must be a multiple of 32, not " + std::to_string(head_dim));
  if (weight && static_cast<int>(weight->size()) != padded(head_dim)) misfit("a head norm weight does not have head_dim values");
  push(HeadNorm{src, std::move(weight), eps, heads, head_dim, dst});
}

void Program::add(int src, int dst) {
  checked(dst, checked(src, 0, "addend").width, "sum").fresh = false;
  push(Add{src, dst});
}

void Program::scale(int dst, float factor) {
  checked(dst, 0, "scaled row").fresh = false;
  push(Scale{dst, factor});
}

void Program::multiply(int dst, Vector by) {
  if (static_cast<int>(by->size()) != padded(checked(dst, 0, "product").width)) misfit("a factor does not have its row's width");
  buffers_[dst].fresh = false;
  push(Multiply{dst, std::move(by)});
}

void Program::gelu_gate(int gate, int up, int up_offset, int dst) {
  const int width = checked(gate, 0, "gate").width;
  if (up_offset % 16 || width % 16 || up_offset + width > checked(up, 0, "up").width) misfit("a gate does not fit its input");
  checked(dst, width, "gated row").fresh = false;
  push(GeluGate{gate, up, up_offset, width, dst});
}

void Program::rope_table(Vector inverse_frequency, int half, int dst) {
  if (half % 16 || static_cast<int>(inverse_frequency->size()) < half)
    misfit("rope needs head_dim / 2 frequencies, a multiple of 16");
  checked(dst, 2 * half, "rope table");
  push(RopeTable{std::move(inverse_frequency), half, dst});
}

void Program::rope(int src, int table, int heads, int head_dim, float scale) {
  checked(table, head_dim, "rope table");
  checked(src, heads * head_dim, "heads").fresh = false;
  push(Rope{src, table, heads, head_dim, scale});
}

void Program::store_kv(int key, int value, int layer) {
  if (reader_) misfit("a reader makes no keys and values");
  if (layer < 0 || static_cast<size_t>(layer) >= kv_.size()) misfit("there is no KV layer " + std::to_string(layer));
  const int width = kv_[layer].kv_heads * kv_[layer].head_dim;
  checked(key, width, "keys");
  checked(value, width, "values");
  push(StoreKv{key, value, layer, kv_[layer].kv_heads});
}

void Program::linear(int src, std::vector<Weights> weights, std::vector<int> dst) {
  if (weights.empty() || weights.size() != dst.size()) misfit("a linear call needs one output per weight");
  for (size_t i = 0; i < weights.size(); ++i) {
    quantize_if_needed(src, weights[i]);
    checked(dst[i], static_cast<int>(weights[i]->shape().rows), "linear output").fresh = false;
    read_always(weights[i]);
  }
  push(Linear{src, std::move(weights), std::move(dst)});
}

void Program::gated_linear(int src, Weights gate, Weights up, int dst) {
  quantize_if_needed(src, gate);
  quantize_if_needed(src, up);
  if (gate->shape().rows != up->shape().rows) misfit("gate and up projections differ in width");
  checked(dst, static_cast<int>(gate->shape().rows), "gated output").fresh = false;
  read_always(gate);
  read_always(up);
  push(GatedLinear{src, std::move(gate), std::move(up), dst});
}

void Program::attention(int query, int layer, int heads, int dst) {
  if (layer < 0 || static_cast<size_t>(layer) >= kv_.size()) misfit("there is no KV layer " + std::to_string(layer));
  if (heads % kv_[layer].kv_heads)
    misfit(std::to_string(heads) + " query heads do not divide among " + std::to_string(kv_[layer].kv_heads) + " KV heads");
  checked(query, heads * kv_[layer].head_dim, "queries");
  checked(dst, heads * kv_[layer].head_dim, "attention output").fresh = false;
  push(Attention{query, layer, heads, dst});
}

void Program::keep_outputs(std::vector<int> buffers) {
  if (narrow_) misfit("only the output rows are left already");
  for (int id : buffers) checked(id, 0, "kept row").fresh = false;
  push(KeepOutputs{std::move(buffers)});
  narrow_ = true;
}

void Program::head(int src, Weights weight, float softcap) {
  if (!narrow_) misfit("the head runs on output rows: call keep_outputs before it");
  quantize_if_needed(src, weight);
  vocabulary_ = std::min<int64_t>(vocabulary_ ? vocabulary_ : INT64_MAX, static_cast<int64_t>(weight->shape().rows));
  read_always(weight);
  push(Head{src, std::move(weight), softcap});
}

void Program::route(int src, int top_k, Vector expert_scale, int dst) {
  const int experts = checked(src, 0, "router scores").width;
  if (top_k < 1 || top_k > experts) misfit("top_k must lie between 1 and the number of experts");
  if (static_cast<int>(expert_scale->size()) < experts) misfit("there are fewer expert scales than experts");
  checked(dst, top_k, "expert weights").fresh = false;
  expert_of_.resize(static_cast<size_t>(max_rows_) * top_k);
  push(Route{src, experts, top_k, std::move(expert_scale), dst});
}

void Program::expert_gated_linear(int src, int top_k, Weights gate_up, int dst) {
  quantize_if_needed(src, gate_up);
  if (gate_up->shape().rows % (2 * kTile)) misfit("an expert's width must be a multiple of 16");
  checked(dst, static_cast<int>(gate_up->shape().rows / 2), "expert output").fresh = false;
  push(ExpertGatedLinear{src, top_k, std::move(gate_up), dst});
}

void Program::expert_linear(int src, int top_k, Weights down, int dst) {
  quantize_if_needed(src, down);
  checked(dst, static_cast<int>(down->shape().rows), "expert output").fresh = false;
  push(ExpertLinear{src, top_k, std::move(down), dst});
}

void Program::combine_experts(int src, int weights, int top_k, int dst) {
  checked(dst, checked(src, 0, "expert outputs").width, "combined row").fresh = false;
  checked(weights, top_k, "expert weights");
  push(CombineExperts{src, weights, top_k, dst});
}

void Program::copy(int src, int dst, int offset) {
  if (offset < 0 || offset + checked(src, 0, "copied row").width > checked(dst, 0, "copy").width)
    misfit("a copy does not fit its row");
  buffers_[dst].fresh = false;
  push(Copy{src, dst, offset});
}

void Program::cluster_linear(int src, int top_k, Weights clusters, int dst) {
  quantize_if_needed(src, clusters);
  checked(dst, static_cast<int>(clusters->shape().rows), "cluster output").fresh = false;
  if (clusters->shape().rows % kTile) misfit("a cluster's size must be a multiple of 16");
  push(ClusterLinear{src, top_k, std::move(clusters), dst});
}

void Program::write(int id, const float* values, size_t rows, size_t width) {
  const Exclusive held = hold();
  if (id < 0 || static_cast<size_t>(id) >= buffers_.size()) throw std::invalid_argument("there is no such buffer");
  Buffer& b = buffers_[id];
  if (rows > b.dense.size() || width != static_cast<size_t>(b.width))
    throw std::invalid_argument("the values do not fit buffer " + b.name);
  for (size_t r = 0; r < rows; ++r) std::copy_n(values + r * width, width, b.row(static_cast<int>(r)));
}

std::vector<float> Program::read(int id, size_t rows) const {
  const Exclusive held = hold();
  const Buffer& b = buffers_.at(id);
  if (rows > b.dense.size()) throw std::invalid_argument("buffer " + b.name + " does not have that many rows");
  std::vector<float> out(rows * b.width);
  for (size_t r = 0; r < rows; ++r) std::copy_n(b.dense[r], b.width, out.data() + r * b.width);
  return out;
}

std::vector<int32_t> Program::chosen(size_t rows, size_t top_k) const {
  const Exclusive held = hold();
  if (rows * top_k > expert_of_.size()) throw std::invalid_argument("no row of the program chose that many");
  return {expert_of_.begin(), expert_of_.begin() + static_cast<std::ptrdiff_t>(rows * top_k)};
}

std::vector<double> Program::seconds() const {
  const Exclusive held = hold();
  return seconds_;
}

void Program::warm() const {
  // The threads take turns of kPiece bytes, each in one line; one load brings a whole cache line.
  static constexpr size_t kPiece = 4096, kLine = 64;
  const auto read = [weights = always_read_, others = static_cast<size_t>(pool_->size() - 1)](int thread,
                                                                                              const std::atomic<bool>& enough) {
    for (const Weights& weight : *weights) {
      const uint8_t* begin = weight->matrix().codes;
      for (size_t at = (thread - 1) * kPiece; at < weight->bytes(); at += others * kPiece) {
        if (enough.load(std::memory_order_relaxed)) return;
        for (size_t i = at; i < std::min(at + kPiece, weight->bytes()); i += kLine)
          *static_cast<const volatile uint8_t*>(begin + i);
      }
    }
  };
  pool_->meanwhile(read);
}

std::vector<std::string> Program::describe() const {
  static const char* const names[] = {"gather",
                                      "rms_norm",
                                      "head_norm",
                                      "quantize",
                                      "add",
                                      "scale",
                                      "multiply",
                                      "gelu_gate",
                                      "rope_table",
                                      "rope",
                                      "route",
                                      "combine_experts",
                                      "copy",
                                      "store_kv",
                                      "linear",
                                      "gated_linear",
                                      "expert_gated_linear",
                                      "expert_linear",
                                      "cluster_linear",
                                      "attention",
                                      "keep_outputs",
                                      "head"};
  static_assert(std::size(names) == std::variant_size_v<Call>);
  std::vector<std::string> out;
  for (const Op& op : ops_) out.push_back(names[op.call.index()]);
  return out;
}

size_t Program::buffer_bytes() const {
  size_t total = 0;
  for (const Buffer& b : buffers_) total += b.data.size() * sizeof(float) + b.groups.size() * sizeof(ActivationGroup);
  return total;
}

void Program::profile(bool on) {
  const Exclusive held = hold();
  profiling_ = on;
  std::fill(seconds_.begin(), seconds_.end(), 0.0);
}

}  // namespace outrider
