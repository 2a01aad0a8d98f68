// The KernelTable of one instruction set. Each isa_*.cpp includes it after its header from simd/.
#pragma once
#include <limits>

#include "kernels/kernel_table.h"
#include "kernels/math.h"
#include "kernels/linear.h"
#include "kernels/rowwise.h"
#include "kernels/attention.h"
#include "kernels/store_kv.h"
#include "kernels/select.h"
#include "kernels/gumbel.h"

namespace outrider::OUTRIDER_ISA {

inline constexpr KernelTable make_table(const char* name) {
  return {name,
          linear_tile,
          head_tiles<linear_tile, kMaxRows>,
          rms_norm,
          quantize_row,
          quantize_row_static,
          round_row,
          add_row,
          scale_row,
          multiply_row,
          gelu_gate,
          rope,
          softcap,
          sum_exp,
          softmax,
          attend_span,
          add_span,
          finish_attention,
          store_kv,
          next_above,
          next_candidates,
          next_listed_candidates,
          std::numeric_limits<int>::max(),
          [] {}};
}

}  // namespace outrider::OUTRIDER_ISA
