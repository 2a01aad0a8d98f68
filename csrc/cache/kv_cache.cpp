#include "cache/kv_cache.h"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>

namespace outrider {
namespace {

constexpr int64_t pages_of(int64_t positions) { return (positions + kPagePositions - 1) / kPagePositions; }

}  // namespace

KvCache::KvCache(std::shared_ptr<KvPages> pages, int64_t max_positions, int max_rows)
    : pages_(std::move(pages)), max_positions_(max_positions), max_rows_(max_rows) {
  const size_t count = static_cast<size_t>(pages_of(max_positions));
  for (int g = 0; g < pages_->groups(); ++g) groups_.push_back({Pages(count), std::vector<uint8_t*>(count, nullptr)});
}

void KvCache::put(int group, int64_t index, std::shared_ptr<KvPage> page) {
  groups_[group].addresses[index] = page ? page->data() : nullptr;
  groups_[group].pages[index] = std::move(page);
}

std::shared_ptr<KvPage> KvCache::copy(const KvPage& page) const { return pages_->load(page.group(), page.data(), page.bytes()); }

std::shared_ptr<KvPage> KvCache::page(int group, int64_t index) const {
  const Exclusive lock = exclusive();
  if (group < 0 || group >= pages_->groups() || index < 0 || index >= pages_of(max_positions_))
    throw std::invalid_argument("the cache has no page " + std::to_string(index) + " of group " + std::to_string(group));
  return groups_[group].pages[index];
}

int64_t KvCache::first_needed(int group, int64_t length) const {
  const int window = pages_->window(group);
  return window ? std::max<int64_t>(0, length - window) : 0;
}

void KvCache::drop(int group, int64_t index) {
  const Exclusive lock = exclusive();
  if (group < 0 || group >= pages_->groups() || index < 0 || (index + 1) * kPagePositions > first_needed(group, length_))
    throw std::invalid_argument("page " + std::to_string(index) + " of group " + std::to_string(group) + " is needed at length " +
                                std::to_string(length_));
  put(group, index, nullptr);
}

// Throws std::invalid_argument if a sequence of `length` positions needs a page that is not among these.
void KvCache::check_pages(int group, const Pages& pages, int64_t length) const {
  for (int64_t i = first_needed(group, length) / kPagePositions; i < pages_of(length); ++i)
    if (i >= static_cast<int64_t>(pages.size()) || !pages[i])
      throw std::invalid_argument("a sequence of " + std::to_string(length) + " positions lacks page " + std::to_string(i) +
                                  " of the layers with window " + std::to_string(pages_->window(group)));
}

void KvCache::resume(const std::vector<Pages>& groups, int64_t length) {
  const Exclusive lock = exclusive();
  if (length_ != 0) throw std::invalid_argument("only an empty sequence can take pages of others");
  if (static_cast<int>(groups.size()) != pages_->groups())
    throw std::invalid_argument("the pages of " + std::to_string(pages_->groups()) + " groups are needed, not of " +
                                std::to_string(groups.size()));
  if (length < 0 || length > max_positions_)
    throw std::invalid_argument("the cache has room for " + std::to_string(max_positions_) + " positions, not " +
                                std::to_string(length));
  for (int g = 0; g < pages_->groups(); ++g) check_pages(g, groups[g], length);
  for (int g = 0; g < pages_->groups(); ++g)
    for (const std::shared_ptr<KvPage>& page : groups[g])
      if (page && (&page->owner() != pages_.get() || page->group() != g))
        throw std::invalid_argument("a page belongs to another group or model");
  const int64_t full = length / kPagePositions;
  Pages copies;
  for (int g = 0; g < pages_->groups(); ++g) copies.push_back(length % kPagePositions ? copy(*groups[g][full]) : nullptr);
  for (int g = 0; g < pages_->groups(); ++g) {
    for (int64_t i = first_needed(g, length) / kPagePositions; i < full; ++i) put(g, i, groups[g][i]);
    if (copies[g]) put(g, full, copies[g]);
  }
  length_ = length;
  staged_ = 0;
}

void KvCache::read(int layer, int64_t position, float* key, float* value) const {
  const Exclusive lock = exclusive();
  if (layer < 0 || layer >= pages_->layers()) throw std::invalid_argument("the cache has no layer " + std::to_string(layer));
  if (position < 0 || position >= length_ || !addresses(layer)[position / kPagePositions])
    throw std::invalid_argument("layer " + std::to_string(layer) + " does not hold position " + std::to_string(position));
  const KvLayout layout = pages_->layout(layer);
  for (int h = 0; h < pages_->shape(layer).kv_heads; ++h)
    read_position(layout, head(layer, h).page(position), static_cast<int>(position % kPagePositions), key + h * layout.head_dim,
                  value + h * layout.head_dim);
}

void KvCache::make_room(int rows) {
  if (rows > max_rows_)
    throw std::invalid_argument("a pass may stage at most " + std::to_string(max_rows_) + " rows of a sequence, not " +
                                std::to_string(rows));
  if (length_ + rows > max_positions_)
    throw std::invalid_argument("the cache has room for " + std::to_string(max_positions_) + " positions; " +
                                std::to_string(length_) + " are used, and the pass needs " + std::to_string(rows) + " more");
  for (int g = 0; g < pages_->groups(); ++g)
    for (int64_t i = length_ / kPagePositions; i < pages_of(length_ + rows); ++i)
      if (!groups_[g].pages[i]) put(g, i, pages_->make(g));
}

void KvCache::stage(int rows) {
  make_room(rows);
  staged_ = rows;
}

void KvCache::commit(const std::vector<int32_t>& path) {
  const Exclusive lock = exclusive();
  for (size_t d = 0; d < path.size(); ++d)
    if (path[d] < 0 || path[d] >= staged_ || (d > 0 && path[d] <= path[d - 1]))
      throw std::invalid_argument("a committed path must list staged rows in ascending order: row " + std::to_string(path[d]) +
                                  " is out of order or not among the " + std::to_string(staged_) + " staged rows");
  for (size_t d = 0; d < path.size(); ++d) {
    const int64_t from = length_ + path[d], to = length_ + static_cast<int64_t>(d);
    if (from == to) continue;
    for (int l = 0; l < pages_->layers(); ++l) move_row(l, from, to);
  }
  length_ += static_cast<int64_t>(path.size());
  staged_ = 0;
}

void KvCache::move_row(int layer, int64_t from, int64_t to) {
  for (int h = 0; h < pages_->shape(layer).kv_heads; ++h) {
    const KvHead at = head(layer, h);
    copy_position(at.layout, at.page(from), static_cast<int>(from % kPagePositions), at.page(to),
                  static_cast<int>(to % kPagePositions));
  }
}

void KvCache::truncate(int64_t length) {
  const Exclusive lock = exclusive();
  if (length < 0 || length > length_)
    throw std::invalid_argument("cannot truncate a sequence of " + std::to_string(length_) + " positions to " +
                                std::to_string(length));
  for (int g = 0; g < pages_->groups(); ++g) check_pages(g, groups_[g].pages, length);
  const int64_t full = length / kPagePositions;
  Pages copies(pages_->groups());
  for (int g = 0; g < pages_->groups(); ++g)
    if (length % kPagePositions && groups_[g].pages[full].use_count() > 1) copies[g] = copy(*groups_[g].pages[full]);
  for (int g = 0; g < pages_->groups(); ++g) {
    if (copies[g]) put(g, full, copies[g]);
    for (int64_t i = pages_of(length); i < static_cast<int64_t>(groups_[g].pages.size()); ++i) put(g, i, nullptr);
  }
  length_ = length;
  staged_ = 0;
}

}  // namespace outrider
