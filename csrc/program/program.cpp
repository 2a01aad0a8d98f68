// Recording of programs. Shapes are checked here once, so that replaying need not check them.
#include "program/program.h"

#include <algorithm>
#include <stdexcept>

#include "program/attention_work.h"

namespace outrider {
namespace {

int padded(int width) { return (width + 31) / 32 * 32; }

[[noreturn]] void refuse(const std::string& what) { throw std::invalid_argument("cannot record: " + what); }

}  // namespace

Buffer::Buffer(std::string n, int w, int rows) : name(std::move(n)), width(w), stride(padded(w)) {
  data.assign(static_cast<size_t>(rows) * stride, 0.0f);
  for (int r = 0; r < rows; ++r) dense.push_back(row(r));
}

void Buffer::make_quantized() {
  if (!quantized.empty()) return;
  groups.assign(dense.size() * (stride / kGroup), ActivationGroup{});
  digits.assign(groups.size(), ActivationDigits{});
  for (int r = 0; r < static_cast<int>(dense.size()); ++r) quantized.push_back({&groups[group(r, 0)], &digits[group(r, 0)]});
}

void Buffer::make_panels() {
  if (quantized.empty() || !panels.empty()) return;
  panels.resize((dense.size() + kPanelRows - 1) / kPanelRows * (stride / kGroup));
}

Program::Program(int max_rows, std::vector<KvShape> kv, KvFormat format, std::shared_ptr<ThreadPool> pool, bool cross_attention)
    : max_rows_(max_rows), kv_(std::move(kv)), kv_format_(format), cross_attention_(cross_attention), pool_(std::move(pool)) {
  if (max_rows_ < 1) refuse("a program needs room for at least one row");
  thread_best_.assign(pool_->size(), std::vector<Best>(max_rows_));
  tile_scratch_.assign(pool_->size(), std::vector<float>(static_cast<size_t>(3 * max_rows_) * kTile));
  adapted_rows_.assign(pool_->size(), std::vector<const float*>(max_rows_));
  chosen_experts_.resize(pool_->size());
  expert_scratch_.resize(pool_->size());
}

int Program::buffer(const std::string& name, int width, int rows_per_row) {
  const Exclusive lock = exclusive();
  if (width < 1) refuse("buffer " + name + " has no width");
  buffers_.emplace_back(name, width, max_rows_ * rows_per_row);
  return static_cast<int>(buffers_.size()) - 1;
}

Buffer& Program::checked(int id, int width, const char* role) {
  if (id < 0 || static_cast<size_t>(id) >= buffers_.size()) refuse(std::string("there is no buffer for ") + role);
  Buffer& b = buffers_[id];
  if (width != 0 && b.width != width)
    refuse(std::string(role) + " '" + b.name + "' is " + std::to_string(b.width) + " wide, expected " + std::to_string(width));
  return b;
}

void Program::add_to_prefetch(const Weights& weight) {
  auto extended = std::make_shared<std::vector<Weights>>(*prefetched_);
  extended->push_back(weight);
  prefetched_ = std::move(extended);
}

void Program::push(Call call) {
  const Exclusive lock = exclusive();
  ops_.push_back({std::move(call), outputs_only_});
  seconds_.resize(ops_.size());
  work_stealing_.reset();
}

void Program::quantize_if_needed(int src, const Weights& weight, float scale) {
  Buffer& b = checked(src, static_cast<int>(weight->shape().columns), "input");
  if (!weight->quantized() && scale != 0.0f) refuse("a static scale for '" + b.name + "', the input of a dense matrix");
  if (!weight->quantized() || (b.quantized_current && b.quantized_scale == scale)) return;
  b.make_quantized();
  if (!last_call_quantizes(src, scale)) push(Quantize{src, scale});
  b.quantized_current = true;
  b.quantized_scale = scale;
}

// Lets the last call quantize its output if it can: a Quantize call of its own would cost a barrier and move each row to another
// core and back.
bool Program::last_call_quantizes(int src, float scale) {
  if (ops_.empty()) return false;
  Call& last = ops_.back().call;
  if (auto* gated = std::get_if<GatedLinear>(&last); gated && gated->dst == src) {
    gated->quantized_scale = scale;
    return gated->quantizes = true;
  }
  if (auto* attention = std::get_if<Attention>(&last); attention && attention->dst == src) {
    attention->quantized_scale = scale;
    return attention->quantizes = kv_[attention->layer].head_dim % kGroup == 0;
  }
  return false;
}

void Program::gather(std::shared_ptr<const Table> table, float scale, int dst, bool embeddings) {
  if (embeddings) embedding_width_ = table->columns;
  checked(dst, static_cast<int>(table->columns), "gathered row").quantized_current = false;
  if (vocabulary_ == 0 || static_cast<int64_t>(table->rows) < vocabulary_) vocabulary_ = static_cast<int64_t>(table->rows);
  push(Gather{std::move(table), scale, dst, embeddings});
}

void Program::rms_norm(int src, Vector weight, float eps, int dst) {
  const int width = checked(src, 0, "norm input").width;
  if (width % 16) refuse("a norm over " + std::to_string(width) + " values: widths must be multiples of 16");
  if (weight && static_cast<int>(weight->size()) != padded(width)) refuse("a norm weight does not have the width of its input");
  checked(dst, width, "norm output").quantized_current = false;
  push(RmsNorm{src, std::move(weight), eps, dst});
}

void Program::head_norm(int src, Vector weight, float eps, int heads, int head_dim, int dst) {
  checked(src, heads * head_dim, "heads");
  checked(dst, heads * head_dim, "normed heads").quantized_current = false;
  if (head_dim % 32) refuse("head_dim must be a multiple of 32, not " + std::to_string(head_dim));
  if (weight && static_cast<int>(weight->size()) != padded(head_dim)) refuse("a head norm weight does not have head_dim values");
  push(HeadNorm{src, std::move(weight), eps, heads, head_dim, dst});
}

void Program::add(int src, int dst) {
  checked(dst, checked(src, 0, "addend").width, "sum").quantized_current = false;
  push(Add{src, dst});
}

void Program::scale(int dst, float factor) {
  checked(dst, 0, "scaled row").quantized_current = false;
  push(Scale{dst, factor});
}

void Program::multiply(int dst, Vector by) {
  if (static_cast<int>(by->size()) != padded(checked(dst, 0, "product").width)) refuse("a factor does not have its row's width");
  buffers_[dst].quantized_current = false;
  push(Multiply{dst, std::move(by)});
}

void Program::gelu_gate(int gate, int up, int up_offset, int dst) {
  const int width = checked(gate, 0, "gate").width;
  if (up_offset % 16 || width % 16 || up_offset + width > checked(up, 0, "up").width)
    refuse("a gate needs widths and an offset that are multiples of 16 and lie within the up projection");
  checked(dst, width, "gated row").quantized_current = false;
  push(GeluGate{gate, up, up_offset, width, dst});
}

void Program::rope_table(Vector inverse_frequency, int half, int dst) {
  if (half % 16 || static_cast<int>(inverse_frequency->size()) < half)
    refuse("rope needs head_dim / 2 frequencies, a multiple of 16");
  checked(dst, 2 * half, "rope table");
  push(RopeTable{std::move(inverse_frequency), half, dst});
}

void Program::rope(int src, int table, int heads, int head_dim, float scale) {
  checked(table, head_dim, "rope table");
  checked(src, heads * head_dim, "heads").quantized_current = false;
  push(Rope{src, table, heads, head_dim, scale});
}

void Program::store_kv(int key, int value, int layer) {
  if (cross_attention_) refuse("a cross-attention program stores no keys and values");
  if (layer < 0 || static_cast<size_t>(layer) >= kv_.size()) refuse("there is no KV layer " + std::to_string(layer));
  const int width = kv_[layer].kv_heads * kv_[layer].head_dim;
  checked(key, width, "keys");
  checked(value, width, "values");
  push(StoreKv{key, value, layer, kv_[layer].kv_heads});
}

// Checks the additions to the products of some matrices and records the first half of their work; returns them.
std::vector<Additions> Program::project(int src, const std::vector<Weights>& weights, std::vector<std::vector<LowRank>> low_rank) {
  if (low_rank.empty()) return {};
  if (low_rank.size() != weights.size()) refuse("low-rank additions need one list per weight");
  std::vector<Additions> additions;
  int width = 0, adapters = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    additions.push_back({std::move(low_rank[i]), width});
    int widest = 0;
    for (const LowRank& part : additions.back().parts) {
      const Matrix &a = part.a->shape(), &b = part.b->shape();
      checked(src, static_cast<int>(a.columns * part.a->count()), "low-rank input");
      if (part.a->quantized() || part.b->quantized()) refuse("a low-rank addition must be stored as floating point");
      if (a.rows != b.columns || b.rows != weights[i]->shape().rows || part.adapter < 0)
        refuse("a low-rank addition does not have the shape of its matrix");
      widest = std::max(widest, part.padded_rank() * static_cast<int>(part.a->count()));
      adapters = std::max(adapters, part.adapter + 1);
    }
    width += widest;
  }
  if (width == 0) return {};
  adapters_ = std::max(adapters_, adapters);
  if (static_cast<size_t>(width) > projected_width_) {
    projected_width_ = width;
    projected_.assign(max_rows_ * projected_width_, 0.0f);
  }
  push(Project{src, additions});
  push(SumProjected{additions});
  return additions;
}

void Program::linear(int src, std::vector<Weights> weights, std::vector<int> dst, float input_scale,
                     std::vector<float> output_scales, std::vector<std::vector<LowRank>> low_rank) {
  if (weights.empty() || weights.size() != dst.size()) refuse("a linear call needs one output per weight");
  output_scales.resize(weights.size(), 0.0f);
  for (size_t i = 0; i < weights.size(); ++i) {
    quantize_if_needed(src, weights[i], input_scale);
    checked(dst[i], static_cast<int>(weights[i]->shape().rows), "linear output").quantized_current = false;
    add_to_prefetch(weights[i]);
  }
  std::vector<Additions> additions = project(src, weights, std::move(low_rank));
  push(Linear{src, std::move(weights), std::move(dst), std::move(output_scales), std::move(additions)});
}

void Program::gated_linear(int src, Weights gate, Weights up, int dst, float input_scale, float gate_scale, float up_scale,
                           std::vector<std::vector<LowRank>> low_rank) {
  quantize_if_needed(src, gate, input_scale);
  quantize_if_needed(src, up, input_scale);
  if (gate->shape().rows != up->shape().rows) refuse("gate and up projections differ in width");
  checked(dst, static_cast<int>(gate->shape().rows), "gated output").quantized_current = false;
  add_to_prefetch(gate);
  add_to_prefetch(up);
  std::vector<Additions> additions = project(src, {gate, up}, std::move(low_rank));
  push(GatedLinear{src, std::move(gate), std::move(up), dst, std::move(additions), gate_scale, up_scale});
}

void Program::attention(int query, int layer, int heads, int dst) {
  if (layer < 0 || static_cast<size_t>(layer) >= kv_.size()) refuse("there is no KV layer " + std::to_string(layer));
  if (heads % kv_[layer].kv_heads)
    refuse(std::to_string(heads) + " query heads do not divide among " + std::to_string(kv_[layer].kv_heads) + " KV heads");
  checked(query, heads * kv_[layer].head_dim, "queries");
  checked(dst, heads * kv_[layer].head_dim, "attention output").quantized_current = false;
  make_attention_scratch(heads, kv_[layer].head_dim);
  push(Attention{query, layer, heads, dst});
}

void Program::make_attention_scratch(int heads, int head_dim) {
  if (!attention_parts_) attention_parts_.reset(new float[AttentionWork::kMaxPartFloats]);
  const size_t blocks = static_cast<size_t>(max_rows_) * heads;
  if (attention_done_.size() < blocks) attention_done_ = std::vector<std::atomic<int64_t>>(blocks);
  if (head_dim <= attention_head_dim_) return;
  attention_head_dim_ = head_dim;
  attention_scratch_.clear();
  for (int t = 0; t < pool_->size(); ++t) attention_scratch_.push_back(std::make_unique<AttentionScratch>(head_dim, max_rows_));
}

void Program::keep_outputs(std::vector<int> buffers) {
  if (outputs_only_) refuse("keep_outputs must be called once only");
  for (int id : buffers) checked(id, 0, "kept row").quantized_current = false;
  push(KeepOutputs{std::move(buffers)});
  outputs_only_ = true;
}

void Program::head(int src, Weights weight, float softcap, float input_scale, float output_scale) {
  if (!outputs_only_) refuse("the head runs on output rows: call keep_outputs before it");
  quantize_if_needed(src, weight, input_scale);
  vocabulary_ = std::min<int64_t>(vocabulary_ ? vocabulary_ : INT64_MAX, static_cast<int64_t>(weight->shape().rows));
  add_to_prefetch(weight);
  push(Head{src, std::move(weight), softcap, output_scale});
}

void Program::route(int src, int top_k, Vector expert_scale, int dst) {
  const int experts = checked(src, 0, "router scores").width;
  if (top_k < 1 || top_k > experts) refuse("top_k must lie between 1 and the number of experts, " + std::to_string(experts));
  if (static_cast<int>(expert_scale->size()) < experts) refuse("there are fewer expert scales than experts");
  checked(dst, top_k, "expert weights").quantized_current = false;
  chosen_.resize(static_cast<size_t>(max_rows_) * top_k);
  for (std::vector<float>& scratch : expert_scratch_) scratch.resize(std::max<size_t>(scratch.size(), (experts + 15) / 16 * 16));
  push(Route{src, experts, top_k, std::move(expert_scale), dst});
}

void Program::expert_gated_linear(int src, int top_k, Weights gate_up, int dst) {
  quantize_if_needed(src, gate_up);
  if (gate_up->shape().rows % (2 * kTile)) refuse("an expert's width must be a multiple of 16");
  checked(dst, static_cast<int>(gate_up->shape().rows / 2), "expert output").quantized_current = false;
  push(ExpertGatedLinear{src, top_k, std::move(gate_up), dst});
}

void Program::expert_linear(int src, int top_k, Weights down, int dst) {
  quantize_if_needed(src, down);
  checked(dst, static_cast<int>(down->shape().rows), "expert output").quantized_current = false;
  push(ExpertLinear{src, top_k, std::move(down), dst});
}

void Program::combine_experts(int src, int weights, int top_k, int dst) {
  checked(dst, checked(src, 0, "expert outputs").width, "combined row").quantized_current = false;
  checked(weights, top_k, "expert weights");
  push(CombineExperts{src, weights, top_k, dst});
}

void Program::copy(int src, int dst, int offset) {
  if (offset < 0 || offset + checked(src, 0, "copied row").width > checked(dst, 0, "copy").width)
    refuse("a copy of " + buffers_[src].name + " at column " + std::to_string(offset) + " exceeds " + buffers_[dst].name);
  buffers_[dst].quantized_current = false;
  push(Copy{src, dst, offset});
}

void Program::cluster_linear(int src, int top_k, Weights clusters, int dst) {
  quantize_if_needed(src, clusters);
  checked(dst, static_cast<int>(clusters->shape().rows), "cluster output").quantized_current = false;
  if (clusters->shape().rows % kTile) refuse("a cluster's size must be a multiple of 16");
  push(ClusterLinear{src, top_k, std::move(clusters), dst});
}

void Program::write(int id, const float* values, size_t rows, size_t width) {
  const Exclusive lock = exclusive();
  if (id < 0 || static_cast<size_t>(id) >= buffers_.size())
    throw std::invalid_argument("the program has no buffer number " + std::to_string(id));
  Buffer& b = buffers_[id];
  if (rows > b.dense.size() || width != static_cast<size_t>(b.width))
    throw std::invalid_argument("buffer " + b.name + " holds (" + std::to_string(b.dense.size()) + ", " + std::to_string(b.width) +
                                ") values, not (" + std::to_string(rows) + ", " + std::to_string(width) + ")");
  for (size_t r = 0; r < rows; ++r) std::copy_n(values + r * width, width, b.row(static_cast<int>(r)));
}

std::vector<float> Program::read(int id, size_t rows) const {
  const Exclusive lock = exclusive();
  const Buffer& b = buffers_.at(id);
  if (rows > b.dense.size())
    throw std::invalid_argument("buffer " + b.name + " has " + std::to_string(b.dense.size()) + " rows, not " +
                                std::to_string(rows));
  std::vector<float> out(rows * b.width);
  for (size_t r = 0; r < rows; ++r) std::copy_n(b.dense[r], b.width, out.data() + r * b.width);
  return out;
}

std::vector<int32_t> Program::chosen(size_t rows, size_t top_k) const {
  const Exclusive lock = exclusive();
  if (rows * top_k > chosen_.size())
    throw std::invalid_argument("the program chooses fewer experts or clusters than " + std::to_string(top_k) + " for each of " +
                                std::to_string(rows) + " rows");
  return {chosen_.begin(), chosen_.begin() + static_cast<std::ptrdiff_t>(rows * top_k)};
}

std::vector<size_t> Program::tasks() const {
  const Exclusive lock = exclusive();
  return work_stealing_ ? work_stealing_->units() : std::vector<size_t>(ops_.size());
}

std::vector<double> Program::seconds() const {
  const Exclusive lock = exclusive();
  return seconds_;
}

void Program::prefetch_weights() const {
  // Pieces go to the threads round robin; one load fetches a whole cache line.
  static constexpr size_t kPiece = 4096, kLine = 64;
  const auto prefetch = [weights = prefetched_, threads = static_cast<size_t>(pool_->size() - 1)](
                            int thread, const std::atomic<bool>& cancelled) {
    for (const Weights& weight : *weights) {
      const uint8_t* begin = weight->matrix().codes;
      for (size_t at = (thread - 1) * kPiece; at < weight->bytes(); at += threads * kPiece) {
        if (cancelled.load(std::memory_order_relaxed)) return;
        for (size_t i = at; i < std::min(at + kPiece, weight->bytes()); i += kLine)
          *static_cast<const volatile uint8_t*>(begin + i);
      }
    }
  };
  pool_->run_in_background(prefetch);
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
                                      "sum_projected",
                                      "copy",
                                      "store_kv",
                                      "project",
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

void Program::profile(bool on) {
  const Exclusive lock = exclusive();
  profiling_ = on;
  std::fill(seconds_.begin(), seconds_.end(), 0.0);
}

}  // namespace outrider
