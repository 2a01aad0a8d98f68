// Replays a program. All threads run the calls in order and share the work of each (see WorkStealing): it divides into rows,
// heads or tiles of 16 outputs, never inside a sum. Consecutive calls that work on one row at a time are one task for each row.
#pragma once
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <limits>

#include "program/attention_work.h"
#include "program/program.h"
#include "runtime/reproducible_math.h"

namespace outrider {

// One thread's part of one run.
class Executor {
 public:
  Executor(Program& program, int thread, float* logits)
      : p_(program), k_(active_kernels()), thread_(thread), threads_(program.pool_->size()), logits_(logits) {}

  void run_all() {
    p_.work_stealing_->join(thread_);
    started_ = std::chrono::steady_clock::now();
    for (op_ = 0; op_ < p_.ops_.size(); op_ = end_) {
      end_ = op_ + 1;
      if (skipped(p_.ops_[op_])) continue;
      outputs_only_ = p_.ops_[op_].outputs_only;
      rows_ = p_.pass_.rows(outputs_only_);
      std::visit(
          [this]<class C>(const C& call) {
            if constexpr (kByRow<C>) run_by_row();
            else run(call);
          },
          p_.ops_[op_].call);
      took(end_ - 1);
    }
    k_.end_run();
  }

 private:
  // Of a row: all of it, or the heads first .. last - 1 of `heads` that each call of its task has.
  struct Part {
    int row, head, heads;
    int first(int all) const { return all * head / heads; }
    int last(int all) const { return all * (head + 1) / heads; }
  };

  bool skipped(const Op& op) const {
    return !p_.pass_.adapts() && (std::holds_alternative<Project>(op.call) || std::holds_alternative<SumProjected>(op.call));
  }

  // Heads that a call works on one by one; 0 for a call that needs the whole row.
  static int heads_of(const Call& call) {
    if (const auto* norm = std::get_if<HeadNorm>(&call)) return norm->heads;
    if (const auto* rope = std::get_if<Rope>(&call)) return rope->heads;
    return 0;
  }

  // The calls on one row at a time from this one on, row by row: each row's values stay in one core's caches, and there is nothing
  // to wait for in between.
  void run_by_row() {
    int heads = std::max(1, heads_of(p_.ops_[op_].call));
    while (end_ < p_.ops_.size() && p_.ops_[end_].by_row()) {
      if (heads_of(p_.ops_[end_].call) != heads) heads = 1;
      ++end_;
    }
    parallel_tasks(static_cast<size_t>(rows_) * heads, [&](size_t task) {
      const Part part{static_cast<int>(task) / heads, static_cast<int>(task) % heads, heads};
      for (size_t op = op_; op < end_; ++op) {
        if (skipped(p_.ops_[op])) continue;
        std::visit(
            [&]<class C>(const C& call) {
              if constexpr (kByRow<C>) run_part(call, part);
            },
            p_.ops_[op].call);
        took(op);
      }
    });
  }

  // Adds the time since the last call of this to an operation's, as the first thread sees it.
  void took(size_t op) {
    if (!p_.profiling_ || thread_ != 0) return;
    const auto now = std::chrono::steady_clock::now();
    p_.seconds_[op] += std::chrono::duration<double>(now - started_).count();
    started_ = now;
  }

  Buffer& buffer(int id) { return p_.buffers_[id]; }
  // Calls work(begin, end) for this thread's pieces of [0, count), each beginning at a multiple of `unit`. Returns when all
  // threads' pieces are done. A call does all its work in one of these, and reads what other calls write only in it: late threads
  // pass by calls that are complete.
  template <class Work> void parallel_for(size_t count, size_t unit, const Work& work) {
    p_.work_stealing_->parallel_for(thread_, op_, count, unit, work);
  }

  // Calls work(task) for this thread's tasks of 0 .. count - 1.
  template <class Work> void parallel_tasks(size_t count, const Work& work) {
    parallel_for(count, 1, [&](size_t begin, size_t end) {
      for (size_t task = begin; task < end; ++task) work(task);
    });
  }

  void run_part(const Gather& c, Part part) {
    Buffer& dst = buffer(c.dst);
    const int row = p_.pass_.row(outputs_only_, part.row);
    float* out = dst.row(part.row);
    if (const float* embedding = c.embeddings ? p_.pass_.embedding(row) : nullptr) {
      std::memcpy(out, embedding, dst.width * sizeof(float));
      return;
    }
    const size_t token = p_.pass_.token(row);
    const Table& table = *c.table;
    dequantize_row(table.format, table.blocks + token * row_bytes(table.format, table.columns), table.columns, out,
                   table.scales.from_row(token));
    if (table.factor != 1.0f) k_.scale_row(table.factor, dst.stride, out);
    k_.scale_row(c.scale, dst.stride, out);
  }

  void run_part(const RmsNorm& c, Part part) {
    Buffer& src = buffer(c.src);
    k_.rms_norm(src.row(part.row), c.weight ? c.weight->data() : nullptr, c.eps, src.width, buffer(c.dst).row(part.row));
  }

  void run_part(const HeadNorm& c, Part part) {
    const float *src = buffer(c.src).row(part.row), *weight = c.weight ? c.weight->data() : nullptr;
    float* dst = buffer(c.dst).row(part.row);
    for (int h = part.first(c.heads); h < part.last(c.heads); ++h)
      k_.rms_norm(src + h * c.head_dim, weight, c.eps, c.head_dim, dst + h * c.head_dim);
  }

  void run_part(const Quantize& c, Part part) {
    Buffer& b = buffer(c.src);
    const int per_row = static_cast<int>(b.dense.size()) / p_.max_rows_;
    for (int i = part.row * per_row; i < (part.row + 1) * per_row; ++i) quantize(b, i, 0, b.stride, c.scale);
  }

  // Quantizes columns begin .. end - 1 of a row, which are whole groups. scale: as in Quantize.
  void quantize(Buffer& b, int row, size_t begin, size_t end, float scale) {
    const int n = static_cast<int>(end - begin);
    const size_t first = b.group(row, begin);
    ActivationGroup* groups = b.groups.data() + first;
    if (scale != 0.0f) k_.quantize_row_static(b.row(row) + begin, n, scale, groups, b.digits.data() + first);
    else k_.quantize_row(b.row(row) + begin, n, groups, b.digits.data() + first);
    if (rows_ >= k_.least_panel_rows) pack_row(groups, (end - begin) / kGroup, row % kPanelRows, b.panel_at(row, begin));
  }

  // The panels of a buffer's quantized rows; null if this run has none.
  const ActivationPanel* panels(const Buffer& b) const { return rows_ >= k_.least_panel_rows ? b.panels.data() : nullptr; }

  // Rounds a tile's outputs (rows, stride) to a static scale, unless that is 0.
  void round_tile(float* out, size_t stride, float scale) {
    for (int r = 0; r < rows_ && scale != 0.0f; ++r) k_.round_row(scale, kTile, out + r * stride);
  }

  void run_part(const Add& c, Part part) {
    k_.add_row(buffer(c.src).row(part.row), buffer(c.src).stride, buffer(c.dst).row(part.row));
  }

  void run_part(const Scale& c, Part part) { k_.scale_row(c.factor, buffer(c.dst).stride, buffer(c.dst).row(part.row)); }

  void run_part(const Multiply& c, Part part) { k_.multiply_row(c.by->data(), buffer(c.dst).stride, buffer(c.dst).row(part.row)); }

  void run_part(const GeluGate& c, Part part) {
    k_.gelu_gate(buffer(c.gate).row(part.row), buffer(c.up).row(part.row) + c.up_offset, c.width, buffer(c.dst).row(part.row));
  }

  void run_part(const RopeTable& c, Part part) {
    const float position = static_cast<float>(p_.pass_.position(p_.pass_.row(outputs_only_, part.row)));
    float* out = buffer(c.dst).row(part.row);
    for (int d = 0; d < c.half; ++d) {
      const auto [sine, cosine] = reproducible::sine_cosine(position * (*c.inverse_frequency)[d]);
      out[d] = cosine;
      out[c.half + d] = sine;
    }
  }

  void run_part(const Rope& c, Part part) {
    const float* table = buffer(c.table).row(part.row);
    float* src = buffer(c.src).row(part.row);
    for (int h = part.first(c.heads); h < part.last(c.heads); ++h)
      k_.rope(src + h * c.head_dim, table, table + c.head_dim / 2, c.head_dim, c.scale);
  }

  void run_part(const Copy& c, Part part) {
    std::memcpy(buffer(c.dst).row(part.row) + c.offset, buffer(c.src).row(part.row), buffer(c.src).width * sizeof(float));
  }

  // A task writes some dimensions of all rows: a cache line holds the keys of 16 positions, and splitting by rows would cause
  // false sharing.
  void run(const StoreKv& c) {
    const int head_dim = p_.kv_[c.layer].head_dim;
    parallel_for(head_dim, kKeyGroup, [&](size_t begin, size_t end) {
      for (int i = 0; i < rows_; ++i) {
        const int row = p_.pass_.row(outputs_only_, i);
        const KvCache& cache = p_.pass_.cache(row);
        for (int h = 0; h < c.heads; ++h)
          k_.store_kv(buffer(c.key).row(i) + h * head_dim, buffer(c.value).row(i) + h * head_dim, static_cast<int>(begin),
                      static_cast<int>(end), p_.pass_.staged_at(row), cache.head(c.layer, h));
      }
    });
  }

  // Prefetches the first codes and scales of a piece. The kernel's own prefetches start behind them (see Prefetcher).
  static void prefetch_start(const Matrix& m, size_t tile) {
    for (size_t at = 0; at < std::min<size_t>(m.tile_codes, kPrefetchedBytes); at += 64)
      __builtin_prefetch(m.tile(tile).codes + at, 0, 2);
    for (size_t at = 0; at < std::min<size_t>(m.tile_scales, kPrefetchedBytes / 8); at += 64)
      __builtin_prefetch(m.tile(tile).scales + at, 0, 2);
  }
  static constexpr size_t kPrefetchedBytes = 4096;

  // What adapters add: executor_adapters.h.
  template <class Input, class Use>
  void tile_of_rows(const Matrix& m, size_t tile, const std::vector<int>& rows, const Input& input, const Use& use);
  float* projected(const Additions& to, int row);
  void run(const Project& c);
  void run_part(const SumProjected& c, Part part);
  void add_low_rank(const std::vector<Additions>& additions, size_t weight, size_t tile, float* out, size_t stride);

  void run(const Linear& c) {
    Buffer& src = buffer(c.src);
    size_t total = 0;
    for (const Weights& w : c.weights) total += w->shape().tiles;
    parallel_for(total, 1, [&](size_t begin, size_t end) {
      size_t offset = 0;
      for (size_t w = 0; w < c.weights.size(); ++w) {
        const Matrix m = c.weights[w]->matrix();
        Buffer& dst = buffer(c.dst[w]);
        if (std::max(begin, offset) < std::min(end, offset + m.tiles)) prefetch_start(m, std::max(begin, offset) - offset);
        for (size_t t = std::max(begin, offset); t < std::min(end, offset + m.tiles); ++t) {
          float* out = dst.row(0) + (t - offset) * kTile;
          k_.linear_tile(m, t - offset, m.tile(t - offset + 1), src.quantized.data(), panels(src), src.dense.data(), rows_, out,
                         dst.stride);
          round_tile(out, dst.stride, c.output_scales[w]);
          add_low_rank(c.additions, w, t - offset, out, dst.stride);
        }
        offset += m.tiles;
      }
    });
  }

  static constexpr size_t kTilesInARow = 8;
  void run(const GatedLinear& c) {
    Buffer &src = buffer(c.src), &dst = buffer(c.dst);
    const Matrix gate = c.gate->matrix(), up = c.up->matrix();
    float *g = p_.tile_scratch_[thread_].data(), *u = g + static_cast<size_t>(p_.max_rows_) * kTile;
    // Several tiles of one matrix in a row: at each jump to the other one, the hardware prefetcher starts anew.
    const size_t most = std::clamp<size_t>(p_.max_rows_ / std::max(rows_, 1), 1, kTilesInARow);
    const size_t size = static_cast<size_t>(rows_) * kTile;
    parallel_for(gate.tiles, kGroup / kTile, [&](size_t begin, size_t end) {
      prefetch_start(gate, begin);
      for (size_t first = begin, last; first < end; first = last) {
        last = std::min(first + most, end);
        const auto product = [&](const Matrix& m, const Tile& next, float scale, size_t weight, float* out) {
          for (size_t t = first; t < last; ++t, out += size) {
            k_.linear_tile(m, t, t + 1 < last ? m.tile(t + 1) : next, src.quantized.data(), panels(src), src.dense.data(), rows_,
                           out, kTile);
            round_tile(out, kTile, scale);
            add_low_rank(c.additions, weight, t, out, kTile);
          }
        };
        product(gate, up.tile(first), c.gate_scale, 0, g);
        product(up, gate.tile(last), c.up_scale, 1, u);
        for (size_t t = first, at = 0; t < last; ++t)
          for (int r = 0; r < rows_; ++r, at += kTile) k_.gelu_gate(g + at, u + at, kTile, dst.row(r) + t * kTile);
      }
      if (!c.quantizes) return;
      for (int r = 0; r < rows_; ++r) quantize(dst, r, begin * kTile, end * kTile, c.quantized_scale);
    });
  }

  // Experts and clusters: executor_experts.h.
  static constexpr int kBatch = 8;
  template <class Work> void each_expert(size_t experts, size_t tiles, int top_k, Work work);
  void expert_tile(const Matrix& m, size_t tile, const Tile& next, Buffer& src, const int* rows, int count, float* out);
  void run_part(const Route& c, Part part);
  void run_part(const CombineExperts& c, Part part);
  void run(const ExpertGatedLinear& c);
  void run(const ExpertLinear& c);
  void run(const ClusterLinear& c);

  void run(const Attention& c) {
    const KvShape& shape = p_.kv_[c.layer];
    const AttentionWork work(p_.pass_, outputs_only_, shape, c.heads / shape.kv_heads, threads_);
    parallel_tasks(work.tasks(), [&](size_t task) {
      const AttentionBlock& block = work.block(task);
      const int kv_head = work.kv_head(task);
      AttentionPack a = pack(c, shape, block, kv_head);
      AttentionScratch& scratch = *p_.attention_scratch_[thread_];
      const AttentionPart total = AttentionPart::in(scratch.total.data(), a.queries);
      if (work.by_span()) {
        const auto part = [&](int64_t span) {
          return AttentionPart::in(p_.attention_parts_.get() + work.part_at(block, kv_head, span), a.queries);
        };
        const int64_t own = work.span(block, task);
        k_.attend_span(a, own, scratch, part(own));
        std::atomic<int64_t>& done = p_.attention_done_[work.number(block, kv_head)];
        if (done.fetch_add(1, std::memory_order_acq_rel) + 1 < block.spans) return;
        done.store(0, std::memory_order_relaxed);  // for the next call
        for (int64_t span = block.first_span; span < block.first_span + block.spans; ++span)
          k_.add_span(a, span, part(span), total);
      } else {
        const AttentionPart part = AttentionPart::in(scratch.part.data(), a.queries);
        for (int64_t span = block.first_span; span < block.first_span + block.spans; ++span) {
          k_.attend_span(a, span, scratch, part);
          k_.add_span(a, span, part, total);
        }
      }
      k_.finish_attention(a, total);
      if (!c.quantizes) return;
      const int group = c.heads / shape.kv_heads;
      for (int j = block.first; j < block.first + block.count; ++j) {
        const size_t column = static_cast<size_t>(kv_head * group + j % group) * shape.head_dim;
        quantize(buffer(c.dst), block.range->begin + j / group, column, column + shape.head_dim, c.quantized_scale);
      }
    });
  }

  AttentionPack pack(const Attention& c, const KvShape& shape, const AttentionBlock& block, int kv_head) {
    AttentionPack a{};
    a.cache = block.range->cache->head(c.layer, kv_head);
    a.committed = block.range->cache->length();
    a.queries = block.count;
    const int group = c.heads / shape.kv_heads;
    for (int q = 0; q < block.count; ++q) {
      const int j = block.first + q, i = block.range->begin + j / group, head = kv_head * group + j % group;
      const int row = p_.pass_.row(outputs_only_, i);
      a.query[q] = buffer(c.query).row(i) + head * shape.head_dim;
      a.out[q] = buffer(c.dst).row(i) + head * shape.head_dim;
      a.first[q] = p_.pass_.first_position(row, shape.window);
      a.last[q] = p_.pass_.last_position(row);
      a.path[q] = p_.pass_.path(row);
    }
    return a;
  }

  void run(const KeepOutputs& c) {
    const std::vector<int32_t>& rows = p_.pass_.outputs();
    if (static_cast<int>(rows.size()) == rows_) return;
    parallel_tasks(c.buffers.size(), [&](size_t b) {  // rows move towards the front only
      Buffer& x = buffer(c.buffers[b]);
      for (size_t i = 0; i < rows.size(); ++i)
        if (rows[i] != static_cast<int32_t>(i)) std::memcpy(x.row(static_cast<int>(i)), x.row(rows[i]), x.stride * sizeof(float));
    });
  }

  void run(const Head& c) {
    Buffer& src = buffer(c.src);
    const Matrix m = c.weight->matrix();
    std::vector<Best>& best = p_.thread_best_[thread_];
    if (rows_ == 0) return;
    parallel_for(m.tiles, 16, [&](size_t begin, size_t end) {
      k_.head_tiles(m, begin, end, src.quantized.empty() ? nullptr : src.quantized.data(), panels(src), src.dense.data(), rows_,
                    best.data(), logits_, m.rows, c.output_scale);
      if (!logits_ || c.softcap == 0.0f) return;
      const size_t first = begin * kTile, count = std::min(end * kTile, m.rows) - first;
      float part[kTile];
      for (int r = 0; r < rows_; ++r)
        for (size_t i = 0; i < count; i += kTile) {
          const size_t n = std::min<size_t>(kTile, count - i);
          float* at = logits_ + r * m.rows + first + i;
          std::memcpy(part, at, n * sizeof(float));
          k_.softcap(c.softcap, kTile, part);
          std::memcpy(at, part, n * sizeof(float));
        }
    });
  }

  Program& p_;
  const KernelTable& k_;
  const int thread_, threads_;
  float* logits_;
  size_t op_ = 0, end_ = 0;  // the operations at work: consecutive ones on one row at a time run together
  std::chrono::steady_clock::time_point started_;
  bool outputs_only_ = false;
  int rows_ = 0;
};

}  // namespace outrider
