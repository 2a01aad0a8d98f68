// The codes and scales of one row's blocks as a checkpoint stores them. The block formats are GGML's.
#pragma once
#include <cstddef>
#include <cstdint>

#include "weights/layout.h"

namespace outrider {

// Masks for words of four codes, one per byte. After a right shift the mask removes the bits of the next byte; left shifts of
// masked codes stay within their byte.
constexpr uint32_t kOnes = 0x01010101u, kPairs = 0x03030303u, kNibbles = 0x0f0f0f0fu, kSigns = 0x80808080u;

// The unsigned codes of the 32 columns of group g of a checkpoint row: column 4k + i is byte i of quad k.
void group_quads(Format f, const uint8_t* row, size_t g, uint32_t (&quad)[8]);

// What scales a group, as the layouts of layout.h hold it.
struct BlockScales {
  uint16_t scale, minimum;  // float16 (Scales::kBrain: bfloat16), of the group or of its 256 columns
  uint8_t own[2];           // of the group: scale and minimum (kSuperMin), scale (kSuper), or the scales (kSuperHalfMin:
                            // and minima) of its halves
};
BlockScales block_scales(Format f, const uint8_t* row, size_t g);

}  // namespace outrider
