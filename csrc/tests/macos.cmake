# Cross-compiles the kernel tests for macOS on ARM64 by PyPI's ziglang, to see that they compile: no emulator runs them.
find_program(python_zig python-zig REQUIRED)
set(CMAKE_SYSTEM_NAME Darwin)
set(CMAKE_SYSTEM_PROCESSOR arm64)
set(OUTRIDER_DOT_PRODUCT -mcpu=generic+v8_2a+dotprod+fullfp16)  # zig has no names of its own for -march
set(CMAKE_CXX_COMPILER ${python_zig} c++ -target aarch64-macos)
