// The key-value cache of one sequence, for every layer that computes its own keys and values.
//
// A pass stages its rows: row i of the sequence goes to slot (length + i) % capacity. commit() turns a path of staged rows
// into the next positions; rows that are not committed are discarded. There is no rollback: a sliding-window layer is a ring
// buffer larger than its window by the staged rows, so staging overwrites no position that the next pass attends to.
// Virtual memory is reserved for the whole context; the system allocates pages on first use.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "runtime/exclusive.h"
#include "cache/kv_format.h"

namespace outrider {

struct KvShape {
  int kv_heads, head_dim;
  int window;  // positions that a sliding-window layer attends to; 0 for full attention
};

// Not concurrent: a call from a second thread, also during a pass over the sequence, throws std::runtime_error.
class KvCache {
 public:
  // max_positions: the longest sequence, staged rows included. max_rows: the most rows that a pass stages.
  // Throws std::bad_alloc if the address space is exhausted.
  KvCache(const std::vector<KvShape>& layers, int64_t max_positions, int max_rows, KvFormat format);
  ~KvCache();
  KvCache(const KvCache&) = delete;
  KvCache& operator=(const KvCache&) = delete;

  int64_t length() const { return length_; }
  int64_t max_positions() const { return max_positions_; }
  KvFormat format() const { return format_; }
  int layers() const { return static_cast<int>(layers_.size()); }
  const KvShape& shape(int layer) const { return layers_[layer].shape; }
  int64_t capacity(int layer) const { return layers_[layer].capacity; }
  KvHead head(int layer, int head) const;
  size_t reserved_bytes() const { return size_; }
  // Set during a pass, and by each call that reads or changes the state that a pass uses (see Exclusive).
  std::atomic_flag& in_use() const { return in_use_; }

  // Copies the key and value of a committed position, (kv_heads, head_dim) float32 each. Throws std::invalid_argument if
  // the layer does not exist or its ring buffer no longer holds the position.
  void read(int layer, int64_t position, float* key, float* value) const;

  // A pass calls stage() before it writes `rows` rows. Both throw std::invalid_argument if the rows do not fit.
  void check_room(int rows) const;
  void stage(int rows);
  // path: strictly ascending staged rows, which become positions length, length + 1, ... Throws std::invalid_argument if a
  // row is not staged or the order is wrong.
  void commit(const std::vector<int32_t>& path);
  // Shortens the sequence to `length` positions. Throws std::invalid_argument, and changes nothing, if a sliding-window layer
  // has overwritten positions that the next one would attend to. earliest() is the smallest length that works besides 0.
  void truncate(int64_t length);
  int64_t earliest() const;

 private:
  struct Layer {
    KvShape shape;
    int64_t capacity;
    size_t keys_at, values_at, scales_at;  // byte offsets of head 0; the scales of a head: keys, then values
  };
  Exclusive exclusive() const { return {in_use_, "the key-value cache"}; }
  void move_row(int layer, int64_t from, int64_t to);

  std::vector<Layer> layers_;
  int64_t length_ = 0, written_ = 0;  // written_: one past the highest position ever staged
  int64_t max_positions_;
  int max_rows_, staged_ = 0;
  KvFormat format_;
  mutable std::atomic_flag in_use_;
  uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace outrider
