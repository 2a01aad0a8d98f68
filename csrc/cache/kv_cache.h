// The keys and values of one sequence, for every layer that makes its own.
//
// A pass stages its rows: row i of the sequence goes to slot (length + i) % capacity, beside what is committed.
// commit() makes a path of staged rows the next positions; rows not committed are as if never written. Nothing needs
// undoing: a sliding layer's ring is larger than its window by the rows in flight, so staging never touches a position
// that the next pass can still see.
// Memory is reserved for the whole context and taken by the system page by page as it is touched.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "runtime/exclusive.h"
#include "cache/kv_format.h"

namespace outrider {

struct KvShape {
  int kv_heads, head_dim;
  int window;  // positions that a sliding layer sees; 0 for a full layer
};

// One call at a time, a pass over the sequence included: a second thread is refused with std::runtime_error.
class KvCache {
 public:
  // max_positions: the longest the sequence may become, staged rows included. max_rows: most rows staged by a pass.
  KvCache(const std::vector<KvShape>& layers, int64_t max_positions, int max_rows, KvFormat format);
  ~KvCache();
  KvCache(const KvCache&) = delete;
  KvCache& operator=(const KvCache&) = delete;

  int64_t length() const { return length_; }
  int64_t max_positions() const { return max_positions_; }
  int max_rows() const { return max_rows_; }
  KvFormat format() const { return format_; }
  int layers() const { return static_cast<int>(layers_.size()); }
  const KvShape& shape(int layer) const { return layers_[layer].shape; }
  int64_t capacity(int layer) const { return layers_[layer].capacity; }
  KvHead head(int layer, int head) const;
  size_t reserved_bytes() const { return size_; }
  // Held for the length of a pass, and by each call that reads or changes what a pass sees.
  std::atomic_flag& in_use() const { return in_use_; }

  // Copies a committed position's key and value, (kv_heads, head_dim) each, which the ring must still hold: throws
  // std::invalid_argument if it does not.
  void read(int layer, int64_t position, float* key, float* value) const;

  // Called by a pass before it writes `rows` rows; check_room() throws std::invalid_argument if they do not fit.
  void check_room(int rows) const;
  void stage(int rows);
  // path: strictly ascending staged rows that become positions length, length + 1, ... Throws std::invalid_argument.
  void commit(const std::vector<int32_t>& path);
  // Goes back to `length` positions. A sliding layer may have overwritten what those positions would see: then this
  // throws std::invalid_argument and changes nothing. earliest() is the smallest length that works besides 0.
  void truncate(int64_t length);
  int64_t earliest() const;

 private:
  struct Layer {
    KvShape shape;
    int64_t capacity;
    size_t keys_at, values_at, scales_at;  // byte offsets of head 0; a head's scales: of its keys, then of its values
  };
  Exclusive hold() const { return {in_use_, "the key-value cache"}; }
  void move_row(int layer, int64_t from, int64_t to);

  std::vector<Layer> layers_;
  int64_t length_ = 0, written_ = 0;  // written_: one past the highest slot position ever staged
  int64_t max_positions_;
  int max_rows_, staged_ = 0;
  KvFormat format_;
  mutable std::atomic_flag in_use_;
  uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace outrider
