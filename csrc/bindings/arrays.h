// Conversion of arrays between Python and C++.
#pragma once
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstdint>
#include <utility>
#include <vector>

namespace outrider {

namespace nb = nanobind;

using ByteArray = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using FloatArray = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using IntArray = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using ByteMatrix = nb::ndarray<const uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using FloatMatrix = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Logits = nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

// A numpy array that takes ownership of the values.
template <class T> nb::ndarray<nb::numpy, T> owned(std::vector<T> values, std::vector<size_t> shape) {
  auto* moved = new std::vector<T>(std::move(values));
  nb::capsule owner(moved, [](void* p) noexcept { delete static_cast<std::vector<T>*>(p); });
  return nb::ndarray<nb::numpy, T>(moved->data(), shape.size(), shape.data(), owner);
}

inline std::vector<int32_t> ints(const IntArray& a) { return {a.data(), a.data() + a.shape(0)}; }

// Binds the key-value cache and recorded programs; see program.cpp.
void bind_program(nb::module_& m);

}  // namespace outrider
