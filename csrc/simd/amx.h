// AMX int8 beside AVX-512: operations on the matrix registers, which Intel calls tiles. matrix_defined.h defines the same in plain
// C++.
#pragma once
#include "simd/avx512.h"
#include "simd/register_shapes.h"

namespace outrider::OUTRIDER_ISA {

inline Bytes sub_bytes(Bytes a, uint8_t b) { return {_mm512_sub_epi8(a.v, _mm512_set1_epi8(static_cast<char>(b)))}; }
inline void store_bytes(uint8_t* p, Bytes a) { _mm512_storeu_si512(p, a.v); }

// Shapes the matrix registers of this thread, until release_registers(). Unreleased registers add 8 kB to what a context switch
// saves, and may keep an idle core from its deeper sleep states.
inline void shape_registers(const RegisterShapes& shapes) { _tile_loadconfig(&shapes); }
inline void release_registers() { _tile_release(); }

// In assembly, since the compilers' own functions do not say that they read memory. Row r of a register is at from + r * stride.
template <int kTo> inline void load_register(const void* from, size_t stride) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride), "i"(kTo) : "memory");
}
template <int kFrom> inline void store_register(int32_t (&to)[256], size_t stride) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride), "i"(kFrom) : "memory");
}
template <int kTo> inline void zero_register() { asm volatile("tilezero %%tmm%c0" ::"i"(kTo)); }
// Adds products of signed bytes: sum[m][n] += a[m][4 * k + i] * b[k][4 * n + i] over all k and i.
template <int kSum, int kA, int kB> inline void multiply_registers() {
  asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kSum), "i"(kA), "i"(kB));
}

}  // namespace outrider::OUTRIDER_ISA
