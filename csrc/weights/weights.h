// From a checkpoint's blocks to the layouts of layout.h, and back to float32 rows.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>

#include "weights/layout.h"

namespace outrider {

class ThreadPool;

// Bytes of one checkpoint row of `columns` weights.
constexpr size_t row_bytes(Format f, size_t columns) { return columns / info(f).block * info(f).block_bytes; }

// The float32 values of one checkpoint row: the reference for what a weight is.
void dequantize_row(Format f, const uint8_t* blocks, size_t columns, float* out);

// Packs the tile of rows [first, first + 16) from `blocks` (rows, row_bytes); rows past the end become zeros.
void pack_tile(Format f, size_t rows, size_t columns, const uint8_t* blocks, size_t first, uint8_t* codes, uint8_t* scales);

// Packs a whole matrix, tile after tile; the sizes are those of packed_matrix().
void pack_matrix(Format f, size_t rows, size_t columns, const uint8_t* blocks, uint8_t* codes, uint8_t* scales);

// The shape of a packed matrix, without its data.
Matrix packed_shape(Format f, size_t rows, size_t columns);

// A packed matrix, or several of one shape one after another (experts), and the memory it lies in.
class Weight {
 public:
  // blocks: (count * rows, row_bytes), read once, tile by tile, by all threads of the pool.
  Weight(Format f, size_t count, size_t rows, size_t columns, const uint8_t* blocks, ThreadPool& pool);
  Matrix matrix(size_t index = 0) const;
  size_t count() const { return count_; }
  const Matrix& shape() const { return shape_; }
  bool quantized() const { return info(shape_.format).bits != 0; }
  size_t bytes() const { return count_ * shape_.tiles * (shape_.tile_codes + shape_.tile_scales); }

 private:
  size_t count_;
  Matrix shape_;
  std::shared_ptr<const uint8_t> data_;
};

}  // namespace outrider
