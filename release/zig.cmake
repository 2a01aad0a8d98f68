# Compiles with the clang of PyPI's ziglang package: no compiler need be installed. On Linux it links against the glibc that the
# wheels promise (manylinux_2_28), whatever this machine has. The C++ library is linked in. `python-zig` must be on the PATH.
find_program(python_zig python-zig REQUIRED)
if(CMAKE_HOST_WIN32)
  set(target x86_64-windows-gnu)
else()
  set(target ${CMAKE_HOST_SYSTEM_PROCESSOR}-linux-gnu.2.28)
endif()
set(OUTRIDER_DOT_PRODUCT -mcpu=generic+v8_2a+dotprod+fullfp16)  # zig has no names of its own for -march
set(CMAKE_CXX_COMPILER ${python_zig} c++ -target ${target})
set(CMAKE_CXX_ARCHIVE_CREATE "${python_zig} ar qc <TARGET> <OBJECTS>")
set(CMAKE_CXX_ARCHIVE_FINISH "${python_zig} ranlib <TARGET>")
