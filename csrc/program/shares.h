// Who does what of a call that threads share. Each has a share of its own, the same in every pass, and takes it in pieces;
// one that is done takes from what others have left, from the end. A thread's notes lie in lines of their own: they cost
// next to nothing until somebody else looks at them. One counter for all would go from core to core with each piece, and
// where cores are far from each other that takes longer than the piece.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace outrider {

class Shares {
 public:
  // calls: how many calls a pass has.
  Shares(int threads, size_t calls) : lines_((calls + kPerLine - 1) / kPerLine) {
    for (int t = 0; t < threads; ++t) notes_.push_back(std::make_unique<Line[]>(2 * lines_));
  }

  // By every thread at the start of a pass, which is odd or even, in turns, and not before all threads have left the last.
  // What it forgets is of the pass before that, so that nobody is looking.
  void start(int thread, bool odd) {
    for (size_t i = 0; i < lines_; ++i)
      for (auto& taken : notes_[thread][(odd ? 0 : lines_) + i].taken) taken.store(0, std::memory_order_relaxed);
  }

  // Calls work(begin, end) for pieces of [0, count) until all is taken, each beginning at a multiple of `unit`. Together the
  // threads, which must all come here with the same numbers, do everything once.
  template <class Work> void divide(int thread, size_t call, bool odd, size_t count, size_t unit, const Work& work) {
    const size_t units = (count + unit - 1) / unit, threads = notes_.size();
    for (size_t i = 0; i < threads; ++i) {
      const size_t whose = (thread + i) % threads, first = units * whose / threads, last = units * (whose + 1) / threads;
      std::atomic<uint64_t>& taken = notes_[whose][(odd ? lines_ : 0) + call / kPerLine].taken[call % kPerLine];
      for (uint64_t seen = taken.load(std::memory_order_relaxed);;) {
        const size_t front = seen & kFront, back = seen >> kBits, left = last - first - front - back;
        if (left == 0) break;
        const size_t piece = (left + 1) / 2;
        const uint64_t now = i == 0 ? seen + piece : seen + (static_cast<uint64_t>(piece) << kBits);
        if (!taken.compare_exchange_weak(seen, now, std::memory_order_relaxed)) continue;
        const size_t begin = i == 0 ? first + front : last - back - piece;
        work(begin * unit, std::min((begin + piece) * unit, count));
        seen = now;  // most likely still
      }
    }
  }

 private:
  static constexpr int kBits = 32;
  static constexpr uint64_t kFront = (uint64_t{1} << kBits) - 1;
  static constexpr size_t kPerLine = 8;
  struct alignas(64) Line {
    std::atomic<uint64_t> taken[kPerLine] = {};  // by call: units taken from the front, and, 32 bits up, from the back
  };

  size_t lines_;
  std::vector<std::unique_ptr<Line[]>> notes_;  // by thread: of even passes, then of odd ones
};

}  // namespace outrider
