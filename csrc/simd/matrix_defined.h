// The operations of amx.h by their definition, for the tests: so kernels on matrix registers run where there are none.
#pragma once
#include <cstring>

#include "simd/portable.h"
#include "simd/register_shapes.h"

namespace outrider::OUTRIDER_ISA {

inline Bytes sub_bytes(Bytes a, uint8_t b) {
  return each_byte([&](int i) { return a.v[i] - b; });
}
inline void store_bytes(uint8_t* p, Bytes a) { std::memcpy(p, a.v, sizeof a.v); }

inline thread_local RegisterShapes shapes_in_use;
inline thread_local int8_t registers[8][16][64];

inline void shape_registers(const RegisterShapes& shapes) { shapes_in_use = shapes; }
inline void release_registers() { shapes_in_use = {}; }

template <int kTo> inline void load_register(const void* from, size_t stride) {
  for (int r = 0; r < shapes_in_use.rows[kTo]; ++r)
    std::memcpy(registers[kTo][r], static_cast<const char*>(from) + r * stride, shapes_in_use.row_bytes[kTo]);
}
template <int kFrom> inline void store_register(int32_t (&to)[256], size_t stride) {
  for (int r = 0; r < shapes_in_use.rows[kFrom]; ++r)
    std::memcpy(reinterpret_cast<char*>(to) + r * stride, registers[kFrom][r], shapes_in_use.row_bytes[kFrom]);
}
template <int kTo> inline void zero_register() { std::memset(registers[kTo], 0, sizeof registers[kTo]); }
template <int kSum, int kA, int kB> inline void multiply_registers() {
  for (int m = 0; m < shapes_in_use.rows[kSum]; ++m)
    for (int n = 0; n < shapes_in_use.row_bytes[kSum] / 4; ++n) {
      int32_t sum;
      std::memcpy(&sum, registers[kSum][m] + 4 * n, 4);
      for (int k = 0; k < shapes_in_use.row_bytes[kA] / 4; ++k)
        for (int i = 0; i < 4; ++i) sum += registers[kA][m][4 * k + i] * registers[kB][k][4 * n + i];
      std::memcpy(registers[kSum][m] + 4 * n, &sum, 4);
    }
}

}  // namespace outrider::OUTRIDER_ISA
