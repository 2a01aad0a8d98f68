// The keys and values of one sequence, for every layer that computes its own: a table of pages for each group of layers.
//
// A pass stages its rows: row i of the sequence goes to position length + i. commit() turns a path of staged rows into the next
// positions; rows that are not committed are discarded.
//
// Sequences share pages. A sequence writes at its length and behind it only, and only into pages that it made: what others read of
// a page, which ends at the length that they have seen, never changes.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "cache/kv_pages.h"
#include "runtime/exclusive.h"

namespace outrider {

// Not concurrent: a call from a second thread, also during a pass over the sequence, throws std::runtime_error.
class KvCache {
 public:
  using Pages = std::vector<std::shared_ptr<KvPage>>;  // by position / kPagePositions; null where there is none

  // max_positions: the longest sequence, staged rows included. max_rows: the most rows that a pass stages.
  KvCache(std::shared_ptr<KvPages> pages, int64_t max_positions, int max_rows);
  KvCache(const KvCache&) = delete;
  KvCache& operator=(const KvCache&) = delete;

  int64_t length() const { return length_; }
  int64_t max_positions() const { return max_positions_; }
  const KvPages& pages() const { return *pages_; }
  KvHead head(int layer, int head) const { return {pages_->layout(layer), addresses(layer), pages_->head_offset(layer, head)}; }
  // Set during a pass, and by each call that reads or changes the state that a pass uses (see Exclusive).
  std::atomic_flag& in_use() const { return in_use_; }

  // The page that holds positions index * kPagePositions and on; null if the sequence has none. Throws std::invalid_argument if
  // there is no such group or the index is beyond max_positions.
  std::shared_ptr<KvPage> page(int group, int64_t index) const;
  // Releases a page. Throws std::invalid_argument unless all its positions lie before first_needed().
  void drop(int group, int64_t index);
  // The first position that a group needs in a sequence of `length` positions: a drafter with cross-attention sees the window that
  // ends with the last one.
  int64_t first_needed(int group, int64_t length) const;
  // Gives an empty sequence the first `length` positions of others: by group, the pages that hold them from first_needed() on. The
  // last page is copied if it is not full. Throws std::invalid_argument, and changes nothing, if one is missing.
  void resume(const std::vector<Pages>& groups, int64_t length);

  // Copies the key and value of a committed position, (kv_heads, head_dim) float32 each. Throws std::invalid_argument if
  // the layer does not exist or does not hold the position.
  void read(int layer, int64_t position, float* key, float* value) const;

  // A pass calls stage() before it writes `rows` rows. make_room() allocates their pages; it throws std::invalid_argument if they
  // do not fit, or std::bad_alloc.
  void make_room(int rows);
  void stage(int rows);
  // path: strictly ascending staged rows, which become positions length, length + 1, ... Throws std::invalid_argument if a
  // row is not staged or the order is wrong.
  void commit(const std::vector<int32_t>& path);
  // Shortens the sequence to `length` positions. Throws std::invalid_argument, and changes nothing, if it needs a page that was
  // dropped. Copies the last page if it is not full and others hold it.
  void truncate(int64_t length);

 private:
  struct Group {
    Pages pages;
    std::vector<uint8_t*> addresses;
  };
  Exclusive exclusive() const { return {in_use_, "the key-value cache"}; }
  uint8_t* const* addresses(int layer) const { return groups_[pages_->group(layer)].addresses.data(); }
  void put(int group, int64_t index, std::shared_ptr<KvPage> page);
  std::shared_ptr<KvPage> copy(const KvPage& page) const;
  void check_pages(int group, const Pages& pages, int64_t length) const;
  void move_row(int layer, int64_t from, int64_t to);

  std::shared_ptr<KvPages> pages_;
  std::vector<Group> groups_;
  int64_t length_ = 0, max_positions_;
  int max_rows_, staged_ = 0;
  mutable std::atomic_flag in_use_;
};

}  // namespace outrider
