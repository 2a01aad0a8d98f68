// What this processor has, as far as the system lets this process use it.
#pragma once

namespace outrider {

#if defined(OUTRIDER_X86)
bool has_avx2();  // with FMA and F16C
bool has_avx_vnni();
bool has_avx512();  // F, BW, DQ and VL, and what has_avx2() says
bool has_avx512_vnni();
bool has_amx();  // int8, and has_avx512_vnni()
#elif defined(OUTRIDER_ARM64)
bool has_dot_product();
bool has_matrix_products();
#endif

}  // namespace outrider
