// Software prefetch of a matrix, beside the kernels that read it.
#pragma once
#include "weights/layout.h"

namespace outrider::OUTRIDER_ISA {

// How far ahead of a step its kernel prefetches, in steps (0: not at all), and into which cache.
struct Ahead {
  int steps;
  bool into_l1;  // otherwise into L2
};

// Software prefetch of the codes and scales kAhead.steps steps ahead, continuing across the end of the tile into the `next` one.
// (A tile of at most so many steps continues into the tiles behind it instead.)
// A step computes for longer than the hardware prefetcher covers, which also stops at page borders and at jumps between
// matrices; without software prefetch, reads and computation would alternate. Distances are measured: see
// docs/lab/pass-costs.md.
template <size_t kStep, size_t kScaleStep, Ahead kAhead>  // kStep, kScaleStep: bytes of codes and of scales per step
class Prefetcher {
 public:
  Prefetcher(const Tile& tile, const Tile& next, int steps)
      : at_{tile.codes + kAhead.steps * kStep, tile.scales + kAhead.steps * kScaleStep},
        next_(next),
        last_(steps - 1 - kAhead.steps) {}
  void step(int number) {
    if constexpr (kAhead.steps > 0) {
      for (size_t line = 0; line < kStep; line += 64) prefetch(at_.codes + line);
      if constexpr (kScaleStep > 0) prefetch(at_.scales);
      at_ = number == last_ ? next_ : Tile{at_.codes + kStep, at_.scales + kScaleStep};
    }
  }

 private:
  static void prefetch(const uint8_t* at) { __builtin_prefetch(at, 0, kAhead.into_l1 ? 3 : 2); }
  Tile at_, next_;
  int last_;
};

}  // namespace outrider::OUTRIDER_ISA
