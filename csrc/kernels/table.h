// Fills a KernelTable with this instruction set's kernels. Included once per csrc/kernels/isa_*.cpp, after its simd header.
#pragma once
#include "kernels/kernel_table.h"
#include "kernels/math.h"
#include "kernels/linear.h"
#include "kernels/rowwise.h"
#include "kernels/attention.h"
#include "kernels/select.h"
#include "kernels/race.h"

namespace outrider::OUTRIDER_ISA {

inline constexpr KernelTable make_table(const char* name) {
  return {name, linear_tile, head_tiles, rms_norm, quantize_row, add_row,  scale_row,  multiply_row, gelu_gate,
          rope, softcap,     sum_exp,    softmax,  attend,       store_kv, next_above, next_group,   next_named_group};
}

}  // namespace outrider::OUTRIDER_ISA
