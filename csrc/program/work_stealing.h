// Work stealing for the calls of a pass. A call divides into units; each thread owns a range of them, the same in every pass,
// and takes pieces from its front; a thread that has finished steals from the back of others' ranges. A call is complete when all
// units are, not when all threads have come by: a thread that the system has stopped holds up the others only while it has a
// piece. One that comes late finds nothing left and goes on.
//
// Threads that wait for each other move cache lines between cores, so no line is written by more than a few of them: each
// thread has counters of its own, a group of kGroup threads counts its finished ranges together, and the groups count theirs. A
// thread first looks for work in the ranges of some others only, whose number grows with the logarithm of the threads.
#pragma once
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "runtime/waiting.h"

namespace outrider {

class WorkStealing {
 public:
  // calls: the number of calls of a pass.
  WorkStealing(int threads, size_t calls)
      : threads_(threads),
        groups_((threads + kGroup - 1) / kGroup),
        lines_((calls + kPerLine - 1) / kPerLine),
        counters_((threads_ + groups_ + 1) * 2 * lines_),
        next_(groups_),
        units_(calls) {}

  // Begins a pass, between two jobs of the threads.
  void begin() {
    odd_ = !odd_;
    std::fill(units_.begin(), units_.end(), 0);
    for (Next& next : next_) next.call.store(0, std::memory_order_relaxed);
  }

  // Every thread calls this first in a pass. Resets the counters of the previous pass, which no thread reads any more, for the
  // next one.
  void join(size_t thread) {
    clear(thread);
    if (thread % kGroup == 0) clear(threads_ + thread / kGroup);
    if (thread == 0) clear(threads_ + groups_);
  }

  // Calls work(begin, end) on pieces of [0, count), each beginning at a multiple of `unit`; returns when all of [0, count) is
  // done. Threads must make the calls of a pass in ascending order, and each the same ones; together they cover each range
  // exactly once. What was written before a call is complete is visible behind it.
  template <class Work> void parallel_for(size_t thread, size_t call, size_t count, size_t unit, const Work& work) {
    const std::atomic<uint32_t>& next = next_[thread / kGroup].call;
    const auto complete = [call](uint32_t at) { return at > call; };
    const auto is_complete = [&] { return complete(next.load(std::memory_order_acquire)); };
    if (count == 0 || is_complete()) return;
    unit *= 1 + count / unit / kMost;
    const size_t units = (count + unit - 1) / unit;
    const auto take_from = [&](size_t distance) {
      const size_t owner = (thread + distance) % threads_, first = units * owner / threads_;
      const size_t size = units * (owner + 1) / threads_ - first;
      std::atomic<uint64_t>& range = counter(owner, call);
      uint64_t done = 0;
      for (uint64_t seen = range.load(std::memory_order_relaxed);;) {
        const size_t front = seen & kMost, back = seen >> kBits & kMost, left = size - front - back;
        if (left == 0) break;
        const size_t piece = (left + 1) / 2;
        const uint64_t now = seen + (distance == 0 ? piece : piece << kBits);
        if (!range.compare_exchange_weak(seen, now, std::memory_order_relaxed)) continue;
        const size_t begin = distance == 0 ? first + front : first + size - back - piece;
        work(begin * unit, std::min((begin + piece) * unit, count));
        done += piece;
        seen = now;  // probably unchanged: saves a load
      }
      if (done && (range.fetch_add(done << 2 * kBits, std::memory_order_acq_rel) >> 2 * kBits) + done == size)
        finish_range(owner, call, units);
      return is_complete();
    };
    for (size_t distance = 0; distance < threads_; distance = distance ? 2 * distance : 1)
      if (take_from(distance)) return;
    if (spin(kSpin, is_complete)) return;
    for (size_t distance = 1; distance < threads_; ++distance)  // a long wait: perhaps all threads close to an owner are stopped
      if (take_from(distance)) return;
    asleep_.fetch_add(1, std::memory_order_acq_rel);
    wait_until(next, std::chrono::nanoseconds(0), complete);
    asleep_.fetch_sub(1, std::memory_order_relaxed);
  }

  // By call: the number of units that the last pass divided it into; 0 for one that it skipped.
  const std::vector<size_t>& units() const { return units_; }

 private:
  static constexpr int kBits = 21;
  static constexpr size_t kMost = (size_t{1} << kBits) - 1;  // units of a range
  static constexpr size_t kPerLine = 8, kGroup = 8;
  // The wait for the last piece of a call on an idle machine is far below this. Beside other processes, two threads on two cores
  // decode slower with a tenth of it and with eight times.
  static constexpr std::chrono::microseconds kSpin{100};

  // Of a range: units taken from the front and from the back, and units that are done, kBits each. Of a group, and of all groups:
  // the ranges that are done.
  struct alignas(64) Line { std::atomic<uint64_t> count[kPerLine] = {}; };
  struct alignas(64) Next {
    std::atomic<uint32_t> call{0};  // all before it are complete
  };

  std::atomic<uint64_t>& counter(size_t owner, size_t call) {
    return counters_[(2 * owner + odd_) * lines_ + call / kPerLine].count[call % kPerLine];
  }

  void clear(size_t owner) {
    for (size_t i = 0; i < lines_; ++i)
      for (auto& count : counters_[(2 * owner + !odd_) * lines_ + i].count) count.store(0, std::memory_order_relaxed);
  }

  // Ranges with units are counted: of the owners before `end`.
  size_t ranges(size_t units, size_t end) const { return units < threads_ ? units * end / threads_ : end; }

  void finish_range(size_t owner, size_t call, size_t units) {
    const size_t group = owner / kGroup, end = std::min((group + 1) * kGroup, threads_);
    const size_t expected = ranges(units, end) - ranges(units, group * kGroup);
    if (counter(threads_ + group, call).fetch_add(1, std::memory_order_acq_rel) + 1 < expected) return;
    if (counter(threads_ + groups_, call).fetch_add(expected, std::memory_order_acq_rel) + expected < ranges(units, threads_))
      return;
    units_[call] = units;
    for (Next& next : next_) raise(next.call, static_cast<uint32_t>(call + 1));  // others may have completed later calls by then
    // Read by a modification, so that either this sees a thread that is about to sleep, or that thread sees the stores.
    if (asleep_.fetch_add(0, std::memory_order_acq_rel) == 0) return;
    for (Next& next : next_) wake_all(next.call);
  }

  const size_t threads_, groups_, lines_;
  bool odd_ = false;
  std::vector<Line> counters_;  // of each thread, each group and all groups: for even passes, then for odd ones
  std::vector<Next> next_;      // the same for all groups
  std::vector<size_t> units_;
  alignas(64) std::atomic<int> asleep_{0};
};

}  // namespace outrider
