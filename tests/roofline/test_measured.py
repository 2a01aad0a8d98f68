"""The machine's own figures, with kernels that really run."""

from __future__ import annotations

import math

import pytest

from outrider.roofline.measured import Microbenchmarks


def test_a_machine_is_measured():
    benchmarks = Microbenchmarks(["Q4_0", "BF16"], 1536, threads=1)
    for _ in range(2):  # the programs serve again
        on = benchmarks.measure()
        assert 1e8 < on.bytes_per_second < 1e13
        assert 0.0 <= on.sweep_start.at(1) <= on.sweep_start.at(16) < 0.01
        assert set(on.linear) == {"Q4_0", "BF16"}
        assert set(on.streamed) == {"Q4_0"}  # the first, which most bytes are in
        assert on.streamed["Q4_0"].at(1) * on.bytes_per_second == pytest.approx(4.5 / 8)
        for arithmetic in (*on.linear.values(), *on.streamed.values(), on.attention):
            assert all(math.isfinite(seconds) and seconds > 0 for seconds in arithmetic.seconds)
            assert list(arithmetic.seconds) == sorted(arithmetic.seconds)
        assert on.name == "this machine with 1 thread"
        assert on.most_drafted == 15


@pytest.mark.parametrize(("format", "width"), [("Q4_K", 640), ("F16", 1), ("Q8_0", 5376)])
def test_memory_is_measured_at_a_width_that_blocks_allow(format, width):
    on = Microbenchmarks([format], width, threads=1).measure()
    assert 1e8 < on.bytes_per_second < 1e13


def test_keys_and_values_of_eight_bits_have_their_own_pace():
    on = Microbenchmarks(["Q4_0"], 640, threads=1, kv_format="int8").measure()
    assert all(seconds > 0 for seconds in on.attention.seconds)
