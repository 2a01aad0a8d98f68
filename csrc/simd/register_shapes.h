// The shapes of the eight matrix registers, in the layout that AMX loads.
#pragma once
#include <cstdint>

namespace outrider {

struct alignas(64) RegisterShapes {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};

  constexpr void set(int number, int rows_of_it, int bytes_of_a_row) {
    rows[number] = static_cast<uint8_t>(rows_of_it);
    row_bytes[number] = static_cast<uint16_t>(bytes_of_a_row);
  }
};
static_assert(sizeof(RegisterShapes) == 64);

}  // namespace outrider
