// Pages: the memory of cached keys and values. A page holds kPagePositions positions of all layers of one group, so that sequences
// with equal beginnings can share it. A group is the layers with the same window, as they need the same positions.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "cache/kv_format.h"

namespace outrider {

struct KvShape {
  int kv_heads, head_dim;
  int window;  // positions that a sliding-window layer attends to; 0 for full attention
};

class KvPages;

// Shared by the sequences that hold it, and freed with its last reference, in any thread.
class KvPage {
 public:
  // data: a slot of the slab, which are the owner's own.
  KvPage(std::shared_ptr<KvPages> owner, int group, size_t slab, uint8_t* data);
  ~KvPage();
  KvPage(const KvPage&) = delete;
  KvPage& operator=(const KvPage&) = delete;
  int group() const { return group_; }
  uint8_t* data() const { return data_; }
  size_t bytes() const;
  const KvPages& owner() const { return *owner_; }

 private:
  friend class KvPages;
  std::shared_ptr<KvPages> owner_;
  int group_;
  size_t slab_;
  uint8_t* data_;
};

// The layout of pages, and their memory. Any thread may make a page.
class KvPages : public std::enable_shared_from_this<KvPages> {
 public:
  KvPages(std::vector<KvShape> layers, KvFormat format);

  KvFormat format() const { return format_; }
  int layers() const { return static_cast<int>(layers_.size()); }
  const KvShape& shape(int layer) const { return layers_[layer].shape; }
  int group(int layer) const { return layers_[layer].group; }
  KvLayout layout(int layer) const { return layout(layers_[layer].shape); }
  size_t head_offset(int layer, int head) const { return layers_[layer].offset + head * layout(layer).bytes(); }
  int groups() const { return static_cast<int>(groups_.size()); }
  int window(int group) const { return groups_[group].window; }
  size_t page_bytes(int group) const { return groups_[group].bytes; }
  size_t bytes_in_use() const { return bytes_in_use_; }  // of all pages that exist

  // A page of zeros: its sequence may end before it is full, and what another request left in its memory must not get into a
  // file with it. Throws std::bad_alloc.
  std::shared_ptr<KvPage> make(int group);
  // A page with the bytes of another one. Throws std::invalid_argument if their number is wrong.
  std::shared_ptr<KvPage> load(int group, const uint8_t* data, size_t bytes);

 private:
  friend class KvPage;
  KvLayout layout(const KvShape& shape) const { return {layer_format(format_, shape.window), shape.head_dim}; }
  struct Layer {
    KvShape shape;
    int group;
    size_t offset;
  };
  // Huge pages that several pages share.
  struct Slab {
    std::shared_ptr<uint8_t> memory;  // null: returned to the system
    std::vector<uint8_t*> free;
  };
  struct Group {
    int window;
    size_t bytes;  // of a page
    std::vector<Slab> slabs;
  };
  std::shared_ptr<KvPage> take(int group);  // uninitialized
  void release(const KvPage& page);
  size_t pages_per_slab(int group) const;

  std::vector<Layer> layers_;
  std::vector<Group> groups_;
  KvFormat format_;
  std::mutex mutex_;  // of the slabs
  std::atomic<size_t> bytes_in_use_{0};
};

}  // namespace outrider
