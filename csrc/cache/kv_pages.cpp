#include "cache/kv_pages.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>
#include <utility>

#include "weights/huge_pages.h"

namespace outrider {
namespace {

constexpr size_t kSlabBytes = 4u << 20;

}  // namespace

KvPage::KvPage(std::shared_ptr<KvPages> owner, int group, size_t slab, uint8_t* data)
    : owner_(std::move(owner)), group_(group), slab_(slab), data_(data) {}

KvPage::~KvPage() { owner_->release(*this); }

size_t KvPage::bytes() const { return owner_->page_bytes(group_); }

KvPages::KvPages(std::vector<KvShape> layers, KvFormat format) : format_(format) {
  for (const KvShape& shape : layers) {
    const auto same = [&](const Group& g) { return g.window == shape.window; };
    const auto found = std::find_if(groups_.begin(), groups_.end(), same);
    const int group = static_cast<int>(found - groups_.begin());
    if (found == groups_.end()) groups_.push_back({shape.window, 0, {}});
    layers_.push_back({shape, group, groups_[group].bytes});
    groups_[group].bytes += shape.kv_heads * layout(shape).bytes();
  }
}

size_t KvPages::pages_per_slab(int group) const { return std::max<size_t>(1, kSlabBytes / page_bytes(group)); }

// The first slab with room, so that the last ones become empty and return to the system.
std::shared_ptr<KvPage> KvPages::take(int group) {
  const std::lock_guard lock(mutex_);
  std::vector<Slab>& slabs = groups_[group].slabs;
  size_t at = 0;
  while (at < slabs.size() && slabs[at].free.empty()) ++at;
  if (at == slabs.size()) {
    at = static_cast<size_t>(std::find_if(slabs.begin(), slabs.end(), [](const Slab& s) { return !s.memory; }) - slabs.begin());
    if (at == slabs.size()) slabs.emplace_back();
    const size_t pages = pages_per_slab(group), bytes = page_bytes(group);
    slabs[at].free.reserve(pages);
    slabs[at].memory = huge_chunk(pages * bytes);
    for (size_t i = pages; i-- > 0;) slabs[at].free.push_back(slabs[at].memory.get() + i * bytes);
  }
  auto page = std::make_shared<KvPage>(shared_from_this(), group, at, slabs[at].free.back());
  slabs[at].free.pop_back();
  bytes_in_use_ += page_bytes(group);
  return page;
}

std::shared_ptr<KvPage> KvPages::make(int group) {
  std::shared_ptr<KvPage> page = take(group);
  std::memset(page->data(), 0, page->bytes());
  return page;
}

void KvPages::release(const KvPage& page) {
  const std::lock_guard lock(mutex_);
  std::vector<Slab>& slabs = groups_[page.group_].slabs;
  Slab& slab = slabs[page.slab_];
  bytes_in_use_ -= page_bytes(page.group_);
  slab.free.push_back(page.data_);
  if (slab.free.size() < pages_per_slab(page.group_)) return;
  const bool others = std::any_of(slabs.begin(), slabs.end(), [&](const Slab& s) { return &s != &slab && !s.free.empty(); });
  if (others) slab = {};  // one stays, so that short sequences do not request memory each time
}

std::shared_ptr<KvPage> KvPages::load(int group, const uint8_t* data, size_t bytes) {
  if (group < 0 || group >= groups()) throw std::invalid_argument("there is no group " + std::to_string(group) + " of layers");
  if (bytes != page_bytes(group))
    throw std::invalid_argument("a page of this group has " + std::to_string(page_bytes(group)) + " bytes, not " +
                                std::to_string(bytes));
  std::shared_ptr<KvPage> page = take(group);
  std::memcpy(page->data(), data, bytes);
  return page;
}

}  // namespace outrider
