# Compiles with the clang of PyPI's ziglang package against the glibc that the wheels promise (manylinux_2_28), whatever this
# machine has: no compiler need be installed. The C++ library is linked in. `python-zig` must be on the PATH.
find_program(python_zig python-zig REQUIRED)
set(CMAKE_CXX_COMPILER ${python_zig} c++ -target ${CMAKE_HOST_SYSTEM_PROCESSOR}-linux-gnu.2.28)
set(CMAKE_CXX_ARCHIVE_CREATE "${python_zig} ar qc <TARGET> <OBJECTS>")
set(CMAKE_CXX_ARCHIVE_FINISH "${python_zig} ranlib <TARGET>")
