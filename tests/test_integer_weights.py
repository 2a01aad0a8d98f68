"""Integers and 8-bit floats with scales beside them: values, products and gathered rows as their definition says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outrider.backends import cpu
from outrider.backends.cpu.weights import WeightStore
from outrider.checkpoints.checkpoint import INTEGER_FORMATS, SCALED_FORMATS, GroupScales, Tensor, bytes_as

_POOL = cpu.ThreadPool(2)


def make(format, rows, columns, groups, *, zero=False, seed=0, count=None):
    """A tensor of random codes and scales."""
    rng, shape = np.random.default_rng(seed), (rows, columns) if count is None else (count, rows, columns)
    codes = rng.integers(0, 256, bytes_as(shape, format), np.uint8)
    if format == "F8_E4M3":
        codes[codes & 0x7F == 0x7F] = 0
    of_groups = (rows * (count or 1), groups)
    zeros = rng.integers(0, 17, of_groups).astype(np.uint8) if zero else None
    return Tensor("w", format, shape, codes, GroupScales(rng.normal(size=of_groups).astype(np.float32), zeros))


def product(tensor, x):
    """Activations (rows, columns) times the matrix, by the core."""
    program = cpu.Program(len(x), [], "float16", _POOL)
    source, result = program.buffer("x", tensor.shape[1]), program.buffer("y", tensor.shape[0])
    program.gather(cpu.table("F32", len(x), x.shape[1], x.reshape(-1).view(np.uint8)), 1.0, source)
    program.linear(source, [WeightStore({"w": tensor}, _POOL).matrix("w")], [result])
    numbers, zeros = np.arange(len(x), dtype=np.int32), np.zeros(len(x), np.int32)
    cache = cpu.KvCache(cpu.KvPages([], "float16"), 16, 16)
    program.run(numbers, zeros, numbers - 1, numbers, [cache], None)
    return program.read(result, len(x))


formats = st.sampled_from(SCALED_FORMATS)


@given(formats, st.integers(1, 20), st.integers(1, 4), st.integers(1, 3), st.booleans(), st.integers(0, 99))
def test_values_are_codes_less_zero_times_scale(format, rows, groups, group, zero, seed):
    zero &= format != "F8_E4M3"
    tensor = make(format, rows, 32 * groups * group, groups, zero=zero, seed=seed)
    scales = tensor.scales
    values = cpu.dequantize(format, *tensor.shape, tensor.data, scales.scale, scales.zero)
    assert np.array_equal(values, tensor.float32())


def test_a_scale_for_each_of_35_groups_of_a_gathered_row():
    tensor = make("I4", 50, 35 * 64, 35)
    program = cpu.Program(3, [], "float16", _POOL)
    row = program.buffer("row", tensor.shape[1])
    program.gather(WeightStore({"w": tensor}, _POOL).table("w"), 16.0, row)
    tokens, zeros = np.array([7, 49, 0], np.int32), np.zeros(3, np.int32)
    program.run(
        tokens,
        zeros,
        np.arange(-1, 2, dtype=np.int32),
        zeros[:0],
        [cpu.KvCache(cpu.KvPages([], "float16"), 8, 8)],
        None,
    )
    assert np.array_equal(program.read(row, 3), tensor.float32()[tokens] * np.float32(16))


@pytest.mark.parametrize("groups", [1, 2, 8])
@pytest.mark.parametrize(
    ("format", "zero"),
    [*((format, False) for format in SCALED_FORMATS), *((format, True) for format in INTEGER_FORMATS)],
)
def test_products_are_those_of_the_values(format, groups, zero):
    tensor = make(format, 37, 256, groups, zero=zero)
    codes = np.random.default_rng(1).integers(-126, 127, (3, 256))
    codes[:, ::32] = 127  # so that quantized activations are exact
    x = (codes / 64).astype(np.float32)
    wanted = x.astype(np.float64) @ tensor.float32().astype(np.float64).T
    assert product(tensor, x) == pytest.approx(wanted, rel=1e-4, abs=1e-4)


def test_e4m3_is_that_of_torch():
    torch = pytest.importorskip("torch")
    codes = np.arange(256, dtype=np.uint8)
    wanted = torch.from_numpy(codes.copy()).view(torch.float8_e4m3fn).float().numpy()
    one = np.ones((1, 1), np.float32)
    for values in (
        cpu.dequantize("F8_E4M3", 1, 256, codes, one),
        Tensor("w", "F8_E4M3", (1, 256), codes, GroupScales(one)).float32(),
    ):
        assert np.array_equal(values[0], wanted, equal_nan=True)


def test_a_nan_among_e4m3_weights_makes_its_row_nan():
    tensor = make("F8_E4M3", 20, 64, 2)
    codes = tensor.data.copy()
    codes[64 * 3 + 40] = 0x7F
    result = product(Tensor("w", "F8_E4M3", tensor.shape, codes, tensor.scales), np.ones((1, 64), np.float32))
    assert np.flatnonzero(np.isnan(result[0])).tolist() == [3]


def test_stacks_and_reordered_rows_take_their_scales_along():
    tensor = make("I4", 32, 64, 2, zero=True)
    order = np.random.default_rng(0).permutation(32).astype(np.int32).reshape(2, 16)
    store = WeightStore({"w": tensor}, _POOL)
    stacked = make("I4", 16, 64, 2, zero=True, count=2)
    assert store.reordered("w", order).nbytes == WeightStore({"w": stacked}, _POOL).matrix("w").nbytes


def test_one_scale_a_row_adds_four_bytes_a_row():
    tensor = make("I2", 64, 1024, 1)
    assert WeightStore({"w": tensor}, _POOL).matrix("w").nbytes == tensor.nbytes == 64 * (1024 // 4 + 4)


@pytest.mark.parametrize(
    ("format", "scale", "zero", "problem"),
    [
        ("I4", None, None, "I4 weights need scales"),
        ("I4", (3, 1), None, "scales of 4 x 64 weights must be"),
        ("I4", (4, 4), None, "each group a multiple of 32"),
        ("I4", (4, 2), (4, 1), "zero points must"),
        ("F8_E4M3", (4, 1), (4, 1), "zero points must"),
        ("F32", (4, 1), None, "no scales beside"),
    ],
)
def test_scales_that_do_not_fit_are_refused(format, scale, zero, problem):
    blocks = np.zeros(bytes_as((4, 64), format), np.uint8)
    scales = [None if scale is None else np.ones(scale, np.float32), None if zero is None else np.ones(zero, np.uint8)]
    with pytest.raises(ValueError, match=problem):
        cpu.pack(format, 4, 64, blocks, _POOL, 1, *scales)


def test_a_table_keeps_its_arrays_alive():
    tensor = make("I4", 8, 64, 2)
    wanted = tensor.float32()
    arrays = [tensor.data.copy(), np.asfortranarray(tensor.scales.scale)]  # the second is copied on the way
    table = cpu.table("I4", 8, 64, *arrays)
    del arrays
    filler = [np.full((8, 2), 7.0, np.float32) for _ in range(64)]
    program = cpu.Program(1, [], "float16", _POOL)
    row = program.buffer("row", 64)
    program.gather(table, 1.0, row)
    zero = np.zeros(1, np.int32)
    program.run(zero + 3, zero, zero - 1, zero, [cpu.KvCache(cpu.KvPages([], "float16"), 8, 8)], None)
    assert np.array_equal(program.read(row, 1)[0], wanted[3])
    assert filler
