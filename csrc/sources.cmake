# The native core's sources and how each is compiled: included by the Python module's build and by the kernel tests.
set(OUTRIDER_CSRC ${CMAKE_CURRENT_LIST_DIR})
include_directories(${OUTRIDER_CSRC})

# No fast-math and no contraction: results are specified bit for bit.
set(OUTRIDER_FLAGS -O3 -Wall -Wextra -ffp-contract=off -fno-math-errno)

if(WIN32)
  link_libraries(synchronization)  # WaitOnAddress
endif()
if(WIN32 AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # GCC bug 54412: the stack has 16-byte alignment there, and instructions that need 32 or 64 bytes crash.
  list(APPEND OUTRIDER_FLAGS -Wa,-muse-unaligned-vector-move)
endif()

string(TOLOWER ${CMAKE_SYSTEM_NAME} system)
string(REPLACE darwin macos system ${system})
if(NOT EXISTS ${OUTRIDER_CSRC}/system/${system}.cpp)
  message(FATAL_ERROR "outrider builds on Linux, macOS and Windows; found ${CMAKE_SYSTEM_NAME}.")
endif()

set(OUTRIDER_KERNEL_SOURCES ${OUTRIDER_CSRC}/kernels/isa_portable.cpp ${OUTRIDER_CSRC}/kernels/dispatch.cpp ${OUTRIDER_CSRC}/kernels/processor.cpp)
set(OUTRIDER_ENGINE_SOURCES
    ${OUTRIDER_CSRC}/program/batch.cpp ${OUTRIDER_CSRC}/program/execute.cpp ${OUTRIDER_CSRC}/weights/huge_pages.cpp ${OUTRIDER_CSRC}/cache/kv_cache.cpp ${OUTRIDER_CSRC}/cache/kv_format.cpp ${OUTRIDER_CSRC}/cache/kv_pages.cpp
    ${OUTRIDER_CSRC}/program/program.cpp
    ${OUTRIDER_CSRC}/weights/quantize.cpp ${OUTRIDER_CSRC}/sampling/sampling.cpp ${OUTRIDER_CSRC}/runtime/threads.cpp ${OUTRIDER_CSRC}/weights/weights.cpp
    ${OUTRIDER_CSRC}/weights/blocks.cpp ${OUTRIDER_CSRC}/system/${system}.cpp)

if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64|amd64")
  list(APPEND OUTRIDER_KERNEL_SOURCES
       ${OUTRIDER_CSRC}/kernels/isa_amx.cpp ${OUTRIDER_CSRC}/kernels/isa_avx512.cpp ${OUTRIDER_CSRC}/kernels/isa_avx2.cpp)
  set(OUTRIDER_DEFINITIONS OUTRIDER_X86)
  if(NOT OUTRIDER_SANITIZE)  # which takes minutes to compile for each, and finds little in what differs from the three above
    list(APPEND OUTRIDER_KERNEL_SOURCES ${OUTRIDER_CSRC}/kernels/isa_avx_vnni.cpp ${OUTRIDER_CSRC}/kernels/isa_avx512bw.cpp)
    list(APPEND OUTRIDER_DEFINITIONS OUTRIDER_ALL_TABLES)
  endif()
  set(avx512 -mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512dq -mavx512vl)
  list(APPEND avx512 -falign-loops=64 -falign-functions=64)  # otherwise unrelated changes move loops and cost up to 10 %
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    list(APPEND avx512 -Wno-maybe-uninitialized -Wno-uninitialized)  # GCC bug 105593: false, from its own AVX-512 headers
  endif()
  set_source_files_properties(${OUTRIDER_CSRC}/kernels/isa_avx512bw.cpp PROPERTIES COMPILE_OPTIONS "${avx512}")
  list(APPEND avx512 -mavx512vnni)
  set_source_files_properties(${OUTRIDER_CSRC}/kernels/isa_avx512.cpp PROPERTIES COMPILE_OPTIONS "${avx512}")
  set_source_files_properties(${OUTRIDER_CSRC}/kernels/isa_amx.cpp PROPERTIES COMPILE_OPTIONS "${avx512};-mamx-tile;-mamx-int8")
  set_source_files_properties(${OUTRIDER_CSRC}/kernels/isa_avx_vnni.cpp PROPERTIES COMPILE_OPTIONS "-mavx2;-mfma;-mf16c;-mavxvnni")
  if(OUTRIDER_TEST_TABLES)  # the same kernels for processors of the tests that lack AVX-VNNI
    list(APPEND OUTRIDER_KERNEL_SOURCES ${OUTRIDER_CSRC}/kernels/isa_avx512vl.cpp)
    list(APPEND OUTRIDER_DEFINITIONS OUTRIDER_TEST_TABLES)
    set_source_files_properties(${OUTRIDER_CSRC}/kernels/isa_avx512vl.cpp PROPERTIES COMPILE_OPTIONS
                                "-mavx2;-mfma;-mf16c;-mavx512f;-mavx512vl;-mavx512vnni")
  endif()
  set_source_files_properties(${OUTRIDER_CSRC}/kernels/isa_avx2.cpp PROPERTIES COMPILE_OPTIONS "-mavx2;-mfma;-mf16c")
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64")
  list(APPEND OUTRIDER_KERNEL_SOURCES ${OUTRIDER_CSRC}/kernels/isa_neon.cpp ${OUTRIDER_CSRC}/kernels/isa_neon_i8mm.cpp)
  set(OUTRIDER_DEFINITIONS OUTRIDER_ARM64)
  if(NOT OUTRIDER_DOT_PRODUCT)
    set(OUTRIDER_DOT_PRODUCT -march=armv8.2-a+dotprod+fp16)
  endif()
  set_source_files_properties(${OUTRIDER_CSRC}/kernels/isa_neon.cpp PROPERTIES COMPILE_OPTIONS "${OUTRIDER_DOT_PRODUCT}")
  set_source_files_properties(${OUTRIDER_CSRC}/kernels/isa_neon_i8mm.cpp PROPERTIES COMPILE_OPTIONS "${OUTRIDER_DOT_PRODUCT}+i8mm")
else()
  message(WARNING "outrider has no vector kernels for ${CMAKE_SYSTEM_PROCESSOR} and uses the portable ones, which are "
                  "slow. Processors with vector kernels: x86-64 (AVX2, AVX-VNNI, AVX-512 VNNI), ARM64 (dot product, i8mm).")
  set(OUTRIDER_DEFINITIONS OUTRIDER_OTHER)
endif()
