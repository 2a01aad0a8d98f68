// Packing of checkpoint blocks into the layouts of layout.h, and dequantization to float32 rows.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "weights/layout.h"

namespace outrider {

class ThreadPool;

// Bytes of one checkpoint row of `columns` weights.
constexpr size_t row_bytes(Format f, size_t columns) { return columns / info(f).block * info(f).block_bytes; }

// Dequantizes one checkpoint row to float32 (columns); defines the value of every weight. scales: of this row.
void dequantize_row(Format f, const uint8_t* blocks, size_t columns, float* out, const GroupScales& scales = {});

// Packs rows first .. first + 15 of `blocks` (rows, row_bytes) into one tile; rows past the end become zeros.
void pack_tile(Format f, size_t rows, size_t columns, const uint8_t* blocks, size_t first, uint8_t* codes, uint8_t* scales,
               const GroupScales& group_scales = {});

// The shape and sizes of a packed matrix; its data pointers are null.
Matrix packed_shape(Format f, size_t rows, size_t columns, const GroupScales& group_scales = {});

// A packed matrix, or a stack of matrices of one shape (experts, clusters), with its memory.
class Weight {
 public:
  // blocks: (count * rows, row_bytes), scales: (count * rows, groups). factors: (count), each of all weights of one matrix; empty:
  // 1, as it is with scales. All threads of the pool pack, each tile once. Throws std::bad_alloc.
  Weight(Format f, size_t count, size_t rows, size_t columns, const uint8_t* blocks, ThreadPool& pool,
         const GroupScales& scales = {}, std::vector<float> factors = {});
  Matrix matrix(size_t index = 0) const;
  size_t count() const { return count_; }
  const Matrix& shape() const { return shape_; }
  bool quantized() const { return info(shape_.format).bits != 0; }
  size_t bytes() const { return count_ * shape_.tiles * (shape_.tile_codes + shape_.tile_scales); }

 private:
  size_t count_;
  Matrix shape_;
  std::shared_ptr<const uint8_t> data_;
  std::vector<float> factors_;
};

}  // namespace outrider
