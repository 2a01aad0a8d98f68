// Fills a KernelTable with this instruction set's kernels. Included once per csrc/isa_*.cpp, after its simd header.
#pragma once
#include "../kernel_table.h"
#include "math.h"
#include "linear.h"
#include "rowwise.h"
#include "attention.h"
#include "select.h"
#include "race.h"

namespace outrider::OUTRIDER_ISA {

inline constexpr KernelTable make_table(const char* name) {
  return {name, linear_tile, head_tiles, rms_norm, quantize_row, add_row,  scale_row,  multiply_row, gelu_gate,
          rope, softcap,     sum_exp,    softmax,  attend,       store_kv, next_above, next_group,   next_named_group};
}

}  // namespace outrider::OUTRIDER_ISA
