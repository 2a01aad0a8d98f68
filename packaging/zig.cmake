# Compiles with the clang of PyPI's ziglang package, against the glibc that the wheels promise (manylinux_2_28), whatever this
# machine has: no compiler need be installed. The C++ library is linked in. OUTRIDER_ARCH: x86_64 (the default) or aarch64.
find_program(python_zig python-zig REQUIRED)
set(OUTRIDER_ARCH x86_64 CACHE STRING "")
set(CMAKE_TRY_COMPILE_PLATFORM_VARIABLES OUTRIDER_ARCH)
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR ${OUTRIDER_ARCH})
set(CMAKE_CXX_COMPILER ${python_zig} c++ -target ${OUTRIDER_ARCH}-linux-gnu.2.28)
set(CMAKE_CXX_ARCHIVE_CREATE "${python_zig} ar qc <TARGET> <OBJECTS>")
set(CMAKE_CXX_ARCHIVE_FINISH "${python_zig} ranlib <TARGET>")
