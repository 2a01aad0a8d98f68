// Work stealing for one kernel call: each thread owns a range, the same in every pass, and takes pieces from its front; a
// thread that has finished steals from the back of others' ranges.
//
// Each thread's counters lie in cache lines of their own, so an owner pays for coherence traffic only when it is stolen from.
// A single shared counter would move between cores with every piece, which can take longer than the piece itself.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace outrider {

class WorkStealing {
 public:
  // calls: the number of calls of a pass.
  WorkStealing(int threads, size_t calls) : lines_((calls + kPerLine - 1) / kPerLine) {
    for (int t = 0; t < threads; ++t) counters_.push_back(std::make_unique<Line[]>(2 * lines_));
  }

  // Every thread calls this at the start of a pass, after all threads have finished the previous one. `odd` alternates from
  // pass to pass. Resets the thread's counters of the previous pass, which no thread reads any more, for the next one.
  void start(int thread, bool odd) {
    for (size_t i = 0; i < lines_; ++i)
      for (auto& taken : counters_[thread][(odd ? 0 : lines_) + i].taken) taken.store(0, std::memory_order_relaxed);
  }

  // Calls work(begin, end) on pieces of [0, count), each beginning at a multiple of `unit`, until none is left. Every thread
  // must make the same call; together they cover the range exactly once.
  template <class Work> void parallel_for(int thread, size_t call, bool odd, size_t count, size_t unit, const Work& work) {
    const size_t units = (count + unit - 1) / unit, threads = counters_.size();
    for (size_t i = 0; i < threads; ++i) {
      const size_t owner = (thread + i) % threads, first = units * owner / threads, last = units * (owner + 1) / threads;
      std::atomic<uint64_t>& taken = counters_[owner][(odd ? lines_ : 0) + call / kPerLine].taken[call % kPerLine];
      for (uint64_t seen = taken.load(std::memory_order_relaxed);;) {
        const size_t front = seen & kFront, back = seen >> kBits, left = last - first - front - back;
        if (left == 0) break;
        const size_t piece = (left + 1) / 2;
        const uint64_t now = i == 0 ? seen + piece : seen + (static_cast<uint64_t>(piece) << kBits);
        if (!taken.compare_exchange_weak(seen, now, std::memory_order_relaxed)) continue;
        const size_t begin = i == 0 ? first + front : last - back - piece;
        work(begin * unit, std::min((begin + piece) * unit, count));
        seen = now;  // probably unchanged: saves a load
      }
    }
  }

 private:
  static constexpr int kBits = 32;
  static constexpr uint64_t kFront = (uint64_t{1} << kBits) - 1;
  static constexpr size_t kPerLine = 8;
  struct alignas(64) Line {
    std::atomic<uint64_t> taken[kPerLine] = {};  // by call: units taken from the front (low 32 bits) and the back (high 32)
  };

  size_t lines_;
  std::vector<std::unique_ptr<Line[]>> counters_;  // by thread: for even passes, then for odd ones
};

}  // namespace outrider
