"""Predicted passes: between what no overlap and what full overlap give, and never cheaper for more."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outrider.errors import UsageError
from outrider.roofline.cost import bound_by_arithmetic, pass_seconds
from outrider.roofline.hardware import ACCELERATORS, Hardware, accelerator
from outrider.roofline.sizes import published_size
from outrider.roofline.work import Attention, Matrix, Work, target_work

WORK = Work(
    (Matrix("Q4_0", 10**9, 562_500_000), Matrix("Q4_0", 10**9, 562_500_000, chosen=8, count=128)),
    (Attention(8, 1, 256, 512), Attention(8, 1, 512, 0)),
    sweeps=2,
)
DENSE = Work(WORK.matrices[:1], (), sweeps=0)


def hardware(bytes_per_second=30e9, multiply_adds=300e9, float_share=1 / 3):
    return Hardware("x", bytes_per_second, multiply_adds, float_share)


def test_memory_alone_makes_further_rows_free():
    on = hardware(multiply_adds=1e30)
    seconds = [pass_seconds(DENSE, on, rows=rows) for rows in (1, 2, 16)]
    assert seconds == pytest.approx([562_500_000 / 30e9] * 3)


def test_arithmetic_alone_makes_them_cost_as_much_as_the_first():
    on = hardware(bytes_per_second=1e30)
    assert [pass_seconds(DENSE, on, rows=rows) for rows in (1, 2, 16)] == pytest.approx([1 / 300, 2 / 300, 16 / 300])


def test_further_rows_of_a_mixture_read_experts_of_their_own():
    on = hardware(multiply_adds=1e30)
    one, two = (pass_seconds(replace(WORK, attentions=(), sweeps=0), on, rows=rows) for rows in (1, 2))
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


def test_the_time_between_sweeps_is_counted():
    on = hardware(bytes_per_second=1e30, multiply_adds=1e30)
    assert pass_seconds(Work((), (), 7), on, rows=1) == pytest.approx(7 * 5e-6)


def test_a_window_bounds_what_a_sliding_layer_reads():
    sliding = Work((), (Attention(8, 1, 256, 512),), 0)
    far, near = (pass_seconds(sliding, hardware(), rows=1, context=context) for context in (9000, 512))
    assert far == near > 0


numbers = st.floats(1e8, 1e13)


@given(numbers, numbers, st.integers(1, 40), st.integers(1, 8), st.integers(0, 5000))
def test_a_pass_lies_between_full_overlap_and_none(bandwidth, multiply_adds, rows, requests, context):
    on = hardware(bandwidth, multiply_adds)
    load = {"rows": rows, "requests": requests, "context": context}
    reading = pass_seconds(WORK, replace(on, multiply_adds_per_second=1e30), **load)
    multiplying = pass_seconds(WORK, replace(on, bytes_per_second=1e30), **load)
    seconds = pass_seconds(WORK, on, **load)
    assert max(reading, multiplying) * (1 - 1e-9) <= seconds <= (reading + multiplying) * (1 + 1e-9)
    for more in ({"rows": rows + 1}, {"requests": requests + 1}, {"context": context + 100}):
        assert seconds <= pass_seconds(WORK, on, **(load | more)) * (1 + 1e-9)


def test_where_arithmetic_takes_over():
    # 18.75 ms to read, 3.33 ms a row to multiply.
    assert bound_by_arithmetic(DENSE, hardware()) == 6
    assert bound_by_arithmetic(DENSE, hardware(multiply_adds=1e9)) == 1


def test_dense_weights_and_attention_are_multiplied_at_the_float_rate():
    on = hardware(bytes_per_second=1e30)
    dense = Work((Matrix("BF16", 10**9, 2 * 10**9),), (), sweeps=0)
    assert pass_seconds(dense, on, rows=1) == pytest.approx(3 * pass_seconds(DENSE, on, rows=1))
    attention = Work((), (Attention(8, 1, 256, 0),), sweeps=0)
    seconds = pass_seconds(attention, on, rows=1, context=1000, kv_format="float16")
    assert seconds == pytest.approx(2 * 1000 * 8 * 256 / 100e9)


def test_attention_in_8_bits_multiplies_bytes_where_there_is_no_window():
    reading, multiplying = hardware(multiply_adds=1e30), hardware(bytes_per_second=1e30)
    full, sliding = (Work((), (Attention(8, 1, 256, window),), sweeps=0) for window in (0, 512))

    def seconds(of, on, kv_format, context=512):
        return pass_seconds(of, on, rows=1, context=context, kv_format=kv_format)

    assert seconds(full, multiplying, "int8") == pytest.approx(2 * 512 * 8 * 256 / 180e9)
    assert seconds(full, reading, "int8") == pytest.approx(2 * 512 * 256 * 17 / 16 / 30e9)
    assert seconds(full, reading, "float16") == pytest.approx(2 * 512 * 256 * 2 / 30e9)
    for on in (reading, multiplying):
        assert seconds(sliding, on, "int8") == seconds(sliding, on, "float16") == seconds(full, on, "float16")


def test_long_contexts_of_e2b_cost_what_was_measured():
    """The milliseconds of docs/performance.md, with two numbers that fit those of short contexts."""
    size, on = published_size("E2B", "Q4_0"), Hardware("EPYC 9004", 48e9, 350e9)
    work = target_work(size.tensors, size.config)
    measured = {
        ("int8", 128): (28.6, 35.1, 64.1),
        ("int8", 32_768): (40.2, 72.5, 128.9),
        ("int8", 131_072): (72.3, 168.9, 316.9),
        ("float16", 32_768): (68.0, 139.7, 242.9),
        ("float16", 131_072): (146.6, 414.1, 766.5),
    }
    for (kv_format, context), of_rows in measured.items():
        for rows, milliseconds in zip((1, 4, 8), of_rows, strict=True):
            seconds = pass_seconds(work, on, rows=rows, context=context, kv_format=kv_format)
            assert 1000 * seconds == pytest.approx(milliseconds, rel=0.12 if kv_format == "int8" else 0.25)


def test_named_hardware_and_other_figures():
    for name, (gigabytes, teraflops) in ACCELERATORS.items():
        on = accelerator(name)
        assert (on.bytes_per_second, on.multiply_adds("Q4_0")) == pytest.approx((gigabytes * 1e9, teraflops / 2 * 1e12))
        assert on.multiply_adds("BF16") == on.multiply_adds("Q4_0")  # data sheets have the rate of floats
        assert on.attention_multiply_adds("int8") == on.attention_multiply_adds("float16") == on.multiply_adds("BF16")
    with pytest.raises(UsageError, match=r"abacus.*h100.*--bandwidth"):
        accelerator("abacus")
    on = Hardware("a processor", 80e9, 1200e9)
    assert on.multiply_adds("BF16") < on.multiply_adds("Q8_0") == 1200e9
    assert on.replaced(None, None) == on
    both = on.replaced(40, 600)
    assert (both.bytes_per_second, both.multiply_adds_per_second) == (40e9, 600e9)
    assert both.name == "a processor, but 40 GB/s, but 600 G multiply-adds/s"
