"""This machine's two numbers, with kernels that really run."""

from __future__ import annotations

import pytest

from outrider.roofline.measured import Machine, measure_hardware


@pytest.mark.parametrize("format", ["Q4_0", "Q4_K", "Q8_0", "F16"])
def test_a_machine_is_measured(format):
    on = measure_hardware(format, threads=1)
    assert 1e8 < on.bytes_per_second < 1e13
    assert 1e8 < on.multiply_adds_per_second < 1e14
    assert on.name == "this machine with 1 thread"
    assert on.most_drafted == 15


def test_the_numbers_are_those_of_the_median_sample():
    machine = Machine("Q8_0", threads=1)
    one, ten = machine.hardware([(0.01, 0.02)]), machine.hardware([(0.01, 0.02), (0.001, 0.002), (0.1, 0.2)])
    assert one == ten
    twice = machine.hardware([(0.02, 0.04)])
    assert twice.bytes_per_second == pytest.approx(one.bytes_per_second / 2)
    assert twice.multiply_adds_per_second == pytest.approx(one.multiply_adds_per_second / 2)
    assert one.bytes_per_second == pytest.approx(150e6 / 0.01, rel=0.01)
