// The kernels of one instruction set, chosen once at run time.
#pragma once
#include <cstddef>
#include <cstdint>

#include "kernels/activation_panel.h"
#include "kernels/attention_pack.h"
#include "weights/layout.h"

namespace outrider {

// The largest logit of a row and its token.
struct Best {
  float logit;
  int32_t token;
};

// A search for candidates of a Gumbel top-k (see gumbel.h): tokens with a large logit + temperature * noise.
struct GumbelSearch {
  uint64_t seed, position;  // key of the noise
  float temperature;
  float min_sum;    // a candidate's logit + temperature * noise exceeds this; set slightly too low, see sum_bounds()
  float min_logit;  // and its logit exceeds this
};

// The second word of the generator's counter selects a stream: noise per token, or maxima per group of tokens.
constexpr uint32_t kTokenStream = 0, kGroupStream = 1;

struct KernelTable {
  const char* name;
  void (*linear_tile)(const Matrix&, size_t tile, const Tile& next, const QuantizedRow*, const ActivationPanel*,
                      const float* const* dense, int rows, float* out, size_t stride);
  void (*head_tiles)(const Matrix&, size_t begin, size_t end, const QuantizedRow*, const ActivationPanel*,
                     const float* const* dense, int rows, Best* best, float* logits, size_t stride, float output_scale);
  void (*rms_norm)(const float* x, const float* weight, float eps, int n, float* out);
  void (*quantize_row)(const float* x, int n, ActivationGroup* out, ActivationDigits* digits);
  void (*quantize_row_static)(const float* x, int n, float scale, ActivationGroup* out, ActivationDigits* digits);
  void (*round_row)(float scale, int n, float* x);
  void (*add_row)(const float* x, int n, float* dst);
  void (*scale_row)(float factor, int n, float* dst);
  void (*multiply_row)(const float* x, int n, float* dst);
  void (*gelu_gate)(const float* gate, const float* up, int n, float* dst);
  void (*rope)(float* head, const float* cosine, const float* sine, int dims, float scale);
  void (*softcap)(float cap, int n, float* x);
  double (*sum_exp)(const float* x, int64_t n, float top, float scale);
  float (*softmax)(float* scores, int begin, int end);
  void (*attend_span)(const AttentionPack&, int64_t span, AttentionScratch&, const AttentionPart& part);
  void (*add_span)(const AttentionPack&, int64_t span, const AttentionPart& part, const AttentionPart& total);
  void (*finish_attention)(const AttentionPack&, const AttentionPart& total);
  void (*store_kv)(const float* key, const float* value, int begin, int end, int64_t slot, const KvHead& to);
  int64_t (*next_above)(const float* x, int64_t begin, int64_t end, float limit);
  int64_t (*next_candidates)(const float* logits, int64_t begin, int64_t end, const GumbelSearch&);
  int64_t (*next_listed_candidates)(const float* logits, const int32_t* tokens, int64_t begin, int64_t end, const GumbelSearch&);
  int least_panel_rows;  // from this many rows on, linear_tile and head_tiles use panels of the rows, where they get them
  void (*end_run)();     // what a thread calls after the last tile of a run
};

// The kernels of matrix registers, which take the places of KernelTable's of the same names.
struct PanelKernels {
  decltype(KernelTable::linear_tile) linear_tile;
  decltype(KernelTable::head_tiles) head_tiles;
  int least_rows;  // KernelTable::least_panel_rows
  decltype(KernelTable::end_run) end_run;
};

// `few`, whose kernels multiply few rows, with those of `panels`.
KernelTable with_panels(const KernelTable& few, const PanelKernels& panels, const char* name);

// The tables that this build contains and this processor supports, fastest first; the last is always "portable".
const KernelTable* const* available_kernels(size_t* count);

// The names of all tables that this build contains, in the same order.
const char* const* built_kernels(size_t* count);

// The table in use: the first available one unless choose_kernels() selected another. choose_kernels() returns false, and
// changes nothing, if no available table has that name.
const KernelTable& active_kernels();
bool choose_kernels(const char* name);
void use_kernels(const KernelTable& table);  // also one that is not available, for tests

}  // namespace outrider
