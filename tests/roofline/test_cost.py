"""Predicted passes: between what no overlap and what full overlap give, and never cheaper for more."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outrider.errors import UsageError
from outrider.roofline.cost import bound_by_arithmetic, pass_seconds
from outrider.roofline.hardware import ACCELERATORS, Arithmetic, Hardware, accelerator, processor, with_bandwidth
from outrider.roofline.work import Attention, Matrix, Work

INFINITE = Arithmetic.flat(1e30)
WORK = Work(
    (Matrix("Q4_0", 10**9, 562_500_000), Matrix("Q4_0", 10**9, 562_500_000, chosen=8, count=128)),
    (Attention(8, 1, 256, 512), Attention(8, 1, 512, 0)),
    sweeps=2,
    width=1536,
)
DENSE = Work(WORK.matrices[:1], (), sweeps=1, width=1536)


def hardware(bytes_per_second=30e9, multiply_adds=300e9, attention=100e9, sweep_start=0.0):
    return Hardware(
        "x",
        bytes_per_second,
        {"Q4_0": Arithmetic.flat(multiply_adds)},
        Arithmetic.flat(attention),
        Arithmetic((1, 1000), (sweep_start, 10 * sweep_start)),
    )


def test_memory_alone_makes_further_rows_free():
    on = hardware(multiply_adds=1e30)
    seconds = [pass_seconds(DENSE, on, rows=rows) for rows in (1, 2, 16)]
    assert seconds == pytest.approx([562_500_000 / 30e9] * 3)


def test_arithmetic_alone_makes_them_cost_as_much_as_the_first():
    on = hardware(bytes_per_second=1e30)
    assert [pass_seconds(DENSE, on, rows=rows) for rows in (1, 2, 16)] == pytest.approx([1 / 300, 2 / 300, 16 / 300])


def test_further_rows_of_a_mixture_read_experts_of_their_own():
    on = hardware(multiply_adds=1e30)
    one, two = (pass_seconds(replace(WORK, attentions=()), on, rows=rows) for rows in (1, 2))
    dense = 562_500_000 / 30e9
    assert one == pytest.approx(dense * (1 + 8 / 128))
    assert two == pytest.approx(dense * (1 + 1 - (120 / 128) ** 2))


def test_requests_share_weights_and_not_keys():
    def seconds(**load):
        return pass_seconds(WORK, hardware(), **load)

    shared = seconds(rows=2, requests=3)
    assert shared == pytest.approx(seconds(rows=6))
    keys = seconds(rows=2, context=4096) - seconds(rows=2)
    assert seconds(rows=2, requests=3, context=4096) == pytest.approx(shared + 3 * keys)


def test_every_sweep_takes_its_start_and_more_rows_a_longer_one():
    seconds = [pass_seconds(Work((), (), 7, 1536), hardware(sweep_start=1e-5), rows=rows) for rows in (1, 1000)]
    assert seconds == pytest.approx([7e-5, 7e-4])


def test_a_window_bounds_what_a_sliding_layer_reads():
    sliding = Work((), (Attention(8, 1, 256, 512),), 0, 1536)
    far, near = (pass_seconds(sliding, hardware(), rows=1, context=context) for context in (9000, 512))
    assert far == near > 0


numbers = st.floats(1e8, 1e13)


@given(numbers, numbers, st.integers(1, 40), st.integers(1, 8), st.integers(0, 5000))
def test_a_pass_lies_between_full_overlap_and_none(bandwidth, multiply_adds, rows, requests, context):
    on = hardware(bandwidth, multiply_adds, multiply_adds, 1e-6)
    load = {"rows": rows, "requests": requests, "context": context}
    reading = pass_seconds(WORK, replace(on, linear={"Q4_0": INFINITE}, attention=INFINITE), **load)
    multiplying = pass_seconds(WORK, replace(on, bytes_per_second=1e30), **load)
    seconds = pass_seconds(WORK, on, **load)
    assert max(reading, multiplying) * (1 - 1e-9) <= seconds <= (reading + multiplying) * (1 + 1e-9)
    for more in ({"rows": rows + 1}, {"requests": requests + 1}, {"context": context + 100}):
        assert seconds <= pass_seconds(WORK, on, **(load | more)) * (1 + 1e-9)


def test_what_was_measured_is_taken_and_beyond_it_only_multiplying_grows():
    on = replace(hardware(), streamed={"Q4_0": Arithmetic((1, 4, 16), (19e-12, 19e-12, 60e-12))})
    seconds = [pass_seconds(DENSE, on, rows=rows) for rows in (1, 2, 4, 10, 16)]
    assert seconds == pytest.approx([0.019, 0.019, 0.019, 0.0395, 0.060])
    # A further row multiplies for 3.3 ms, where nearly nothing of the reading is left to see.
    assert pass_seconds(DENSE, on, rows=17) == pytest.approx(0.0633, rel=0.01)
    assert pass_seconds(DENSE, on, rows=160) == pytest.approx(0.060 + 144 / 300, rel=0.01)
    assert bound_by_arithmetic(DENSE, on) == 6  # 25.8 ms, 1.32 times 19
    assert with_bandwidth(on, 30).streamed == {}  # that was other memory
    of_others = Work((Matrix("Q8_0", 10**9, 10**9),), (), sweeps=0, width=1536)
    others = replace(on, linear=on.linear | {"Q8_0": INFINITE})
    assert pass_seconds(of_others, others, rows=8) == pytest.approx(1 / 30)


def test_where_arithmetic_takes_over():
    # 18.75 ms to read, 3.33 ms a row to multiply.
    assert bound_by_arithmetic(DENSE, hardware()) == 6
    assert bound_by_arithmetic(DENSE, hardware(multiply_adds=1e9)) == 1


def test_arithmetic_between_and_beyond_what_was_measured():
    measured = Arithmetic((1, 4, 8), (1.0, 1.6, 2.4))
    assert [measured.at(rows) for rows in (1, 2.5, 4, 8, 16, 80)] == pytest.approx([1.0, 1.3, 1.6, 2.4, 4.8, 24.0])
    assert measured.most == pytest.approx(8 / 2.4)
    assert Arithmetic.flat(2.0).at(7) == pytest.approx(3.5)


def test_named_and_described_hardware():
    for name, (gigabytes, teraflops) in ACCELERATORS.items():
        on = accelerator(name)
        assert (on.bytes_per_second, on.linear["Q4_0"].most) == pytest.approx((gigabytes * 1e9, teraflops / 2 * 1e12))
    with pytest.raises(UsageError, match=r"abacus.*h100.*--bandwidth"):
        accelerator("abacus")
    on = processor(80, 150, 8)
    assert (on.bytes_per_second, on.linear["Q4_0"].most) == pytest.approx((80e9, 1200e9))
    assert on.linear["BF16"].most < on.linear["Q8_0"].most
    assert with_bandwidth(on, 40).bytes_per_second == 40e9
    assert "40 GB/s" in with_bandwidth(on, 40).name
