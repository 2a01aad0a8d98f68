// Mixtures of experts, and the clusters of a drafter's head.
#pragma once
#include "program/executor.h"

namespace outrider {

// Softmax over all experts; the top_k largest (ties to the lower index), normalized to sum 1, times the scale of each expert.
inline void Executor::run_part(const Route& c, Part part) {
  const float* score = buffer(c.src).row(part.row);
  float *weight = buffer(c.dst).row(part.row), total = 0.0f;
  int32_t* chosen = p_.chosen_.data() + static_cast<size_t>(part.row) * c.top_k;
  std::vector<float>& e = p_.expert_scratch_[thread_];
  std::copy(score, score + c.experts, e.begin());
  k_.softmax(e.data(), 0, c.experts);
  for (int k = 0; k < c.top_k; ++k) {
    int best = 0;
    for (int x = 1; x < c.experts; ++x)
      if (e[x] > e[best]) best = x;
    chosen[k] = best;
    weight[k] = e[best];
    total += e[best];
    e[best] = -1.0f;
  }
  for (int k = 0; k < c.top_k; ++k) weight[k] = weight[k] / total * (*c.expert_scale)[chosen[k]];
}

inline void Executor::run_part(const CombineExperts& c, Part at) {
  Buffer& dst = buffer(c.dst);
  float* sum = dst.row(at.row);
  std::memset(sum, 0, dst.stride * sizeof(float));
  for (int k = 0; k < c.top_k; ++k) {
    float* part = buffer(c.src).row(at.row * c.top_k + k);
    k_.scale_row(buffer(c.weights).row(at.row)[k], dst.stride, part);
    k_.add_row(part, dst.stride, sum);
  }
}

// Calls work(expert, first tile, last tile + 1, pairs, count) with the (row, rank) pairs that chose the expert, up to
// kBatch at a time: they share the unpacking of its weights. Only chosen experts count, so that one row's work divides too; their
// number is not known before all threads agree on the division, its bound is.
template <class Work> void Executor::each_expert(size_t experts, size_t tiles, int top_k, Work work) {
  const int all = rows_ * top_k;
  parallel_for(std::min<size_t>(experts, all) * tiles, 1, [&](size_t begin, size_t end) {
    auto& [is_chosen, chosen] = p_.chosen_experts_[thread_];
    is_chosen.assign(experts, 0), chosen.clear();
    for (int pair = 0; pair < all; ++pair) is_chosen[p_.chosen_[pair]] = 1;
    for (size_t expert = 0; expert < experts; ++expert)
      if (is_chosen[expert]) chosen.push_back(expert);
    for (size_t at = begin, next; at < std::min(end, chosen.size() * tiles); at = next) {
      const size_t expert = chosen[at / tiles], first = at % tiles;
      next = std::min(end, (at / tiles + 1) * tiles);
      int pairs[kBatch], count = 0;
      for (int pair = 0; pair < all; ++pair) {
        if (p_.chosen_[pair] == static_cast<int32_t>(expert)) pairs[count++] = pair;
        if (count == kBatch || (count > 0 && pair + 1 == all)) {
          work(expert, first, first + next - at, pairs, count);
          count = 0;
        }
      }
    }
  });
}

// One tile of an expert for rows rows[0 .. count - 1] of src, into out (count, 16).
inline void Executor::expert_tile(const Matrix& m, size_t tile, const Tile& next, Buffer& src, const int* rows, int count,
                                  float* out) {
  QuantizedRow quantized[kBatch];
  const float* dense[kBatch];
  for (int i = 0; i < count; ++i) {
    if (!src.quantized.empty()) quantized[i] = src.quantized[rows[i]];
    dense[i] = src.dense[rows[i]];
  }
  k_.linear_tile(m, tile, next, quantized, nullptr, dense, count, out, kTile);
}

inline void Executor::run(const ExpertGatedLinear& c) {
  Buffer &src = buffer(c.src), &dst = buffer(c.dst);
  const size_t half = c.gate_up->shape().tiles / 2;
  each_expert(c.gate_up->count(), half, c.top_k, [&](size_t expert, size_t begin, size_t end, const int* pairs, int count) {
    const Matrix m = c.gate_up->matrix(expert);
    int rows[kBatch];
    for (int i = 0; i < count; ++i) rows[i] = pairs[i] / c.top_k;
    float gate[kBatch * kTile], up[kBatch * kTile];
    for (size_t t = begin; t < end; ++t) {
      expert_tile(m, t, m.tile(half + t), src, rows, count, gate);
      expert_tile(m, half + t, m.tile(t + 1), src, rows, count, up);
      for (int i = 0; i < count; ++i) k_.gelu_gate(gate + i * kTile, up + i * kTile, kTile, dst.row(pairs[i]) + t * kTile);
    }
  });
}

inline void Executor::run(const ExpertLinear& c) {
  Buffer &src = buffer(c.src), &dst = buffer(c.dst);
  each_expert(c.down->count(), c.down->shape().tiles, c.top_k,
              [&](size_t expert, size_t begin, size_t end, const int* pairs, int count) {
                const Matrix m = c.down->matrix(expert);
                float out[kBatch * kTile];
                for (size_t t = begin; t < end; ++t) {
                  expert_tile(m, t, m.tile(t + 1), src, pairs, count, out);
                  for (int i = 0; i < count; ++i)
                    std::memcpy(dst.row(pairs[i]) + t * kTile, out + i * kTile, kTile * sizeof(float));
                }
              });
}

// The clusters that each row chose. There are few rows, so they share no unpacking.
inline void Executor::run(const ClusterLinear& c) {
  Buffer &src = buffer(c.src), &dst = buffer(c.dst);
  const size_t tiles = c.clusters->shape().tiles;
  parallel_tasks(static_cast<size_t>(rows_) * c.top_k * tiles, [&](size_t task) {
    const size_t pair = task / tiles, tile = task % tiles, row = pair / c.top_k;
    const Matrix m = c.clusters->matrix(p_.chosen_[pair]);
    k_.linear_tile(m, tile, m.tile(tile + 1), src.quantized.empty() ? nullptr : src.quantized.data() + row, nullptr,
                   src.dense.data() + row, 1, dst.row(static_cast<int>(pair)) + tile * kTile, dst.stride);
  });
}

}  // namespace outrider
