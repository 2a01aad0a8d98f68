"""Low-rank additions in a program: two executors agree on them, and no row sees how they are computed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from outrider.backends import cpu
from outrider.backends.cpu.lowering import CpuExecutor
from outrider.backends.cpu.weights import WeightStore
from outrider.backends.reference import ReferenceCache, ReferenceExecutor
from outrider.checkpoints.adapters import LowRank
from outrider.checkpoints.checkpoint import Format, Tensor
from outrider.program import Adapt, Gather, GeluGate, Head, KvLayer, Linear, Program, Recorder, adapted

WIDTH, INNER, TOKENS = 1536, 2080, 64
KV = (KvLayer(1, 32, 0),)
SHAPES = {"embed": (TOKENS, WIDTH), "gate": (INNER, WIDTH), "up": (INNER, WIDTH), "down": (WIDTH, INNER)}


def tensor(name: str, shape: tuple[int, ...], seed: int, format: Format = "F32") -> Tensor:
    values = np.random.default_rng(seed).normal(size=shape).astype(np.float32) / np.float32(np.sqrt(shape[-1]))
    bits = values.view(np.uint32)
    data = {"F32": values, "F16": values.astype(np.float16), "BF16": (bits >> 16).astype(np.uint16)}[format]
    return Tensor(name, format, shape, data.reshape(-1).view(np.uint8))


def adapter(rank: int, seed: int, *names: str, format: Format = "F32") -> dict[str, LowRank]:
    made = {}
    for number, name in enumerate(names):
        rows, columns = SHAPES[name]
        a = tensor("a", (rank, columns), seed + number, format)
        made[name] = LowRank(a, tensor("b", (rows, rank), seed + 50 + number, format), 0.7)
    return made


TENSORS = {name: tensor(name, shape, seed) for seed, (name, shape) in enumerate(SHAPES.items())}
ADAPTERS = [
    adapter(5, 100, "gate", "up", "down"),
    adapter(33, 200, "up", format="BF16"),
    adapter(16, 300, "gate", "down", format="F16"),
]


def program() -> Program:
    record = Recorder(TENSORS, KV)
    x, y = record.buffer("x", WIDTH), record.buffer("y", WIDTH)
    gate, up, gated = (record.buffer(name, INNER) for name in ("gate", "up", "gated"))
    record(Gather("embed", 1.0, x), Linear(x, "gate", gate), Linear(x, "up", up), GeluGate(gate, up, gated))
    record(Linear(gated, "down", y), Head(y, "embed", 0.0))
    return adapted(record.program(), {"gate", "up", "down"})


def executor(threads: int = 2, max_rows: int = 40) -> CpuExecutor:
    pool = cpu.ThreadPool(threads)
    store = WeightStore(TENSORS, pool)
    return CpuExecutor(program(), store, pool, max_rows=max_rows, kv_format="float32", adapters=ADAPTERS)


def logits_of(run, cache, numbers: list[int] | None, tokens: list[int]) -> np.ndarray:
    rows = np.arange(len(tokens), dtype=np.int32)
    logits = np.empty((len(tokens), TOKENS), np.float32)
    given = None if numbers is None else np.array(numbers, np.int32)
    run.run(np.array(tokens, np.int32), np.zeros_like(rows), rows - 1, rows, [cache], logits, None, given)
    return logits


def native_cache() -> cpu.KvCache:
    return cpu.KvCache(cpu.KvPages(cpu.kv_shapes(KV), "float32"), 64, 40)


NUMBERS = [0, -1, 2, 1, 1, 0, -1, 2, 0, 0, 1, 2]
ROWS = [7, 7, 7, 7, 9, 9, 9, 9, 60, 3, 60, 60]


def test_the_core_computes_what_the_reference_computes():
    reference = ReferenceExecutor(program(), TENSORS, adapters=ADAPTERS)
    for numbers in (NUMBERS, [0] * 12, [-1] * 12, None):
        expected = logits_of(reference, ReferenceCache(KV), numbers, ROWS)
        found = logits_of(executor(), native_cache(), numbers, ROWS)
        np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-4)
    plain = logits_of(reference, ReferenceCache(KV), None, ROWS)
    for row, number in enumerate(NUMBERS):
        assert np.allclose(plain[row], logits_of(reference, ReferenceCache(KV), NUMBERS, ROWS)[row]) == (number < 0)


@pytest.mark.parametrize("instruction_set", cpu.instruction_sets())
def test_a_row_has_the_same_bits_alone_and_among_others(instruction_set):
    """On any number of threads and on every instruction set; sums over wide inputs are divided in fixed ranges."""
    before = cpu.instruction_set()
    alone = [logits_of(executor(1, 1), native_cache(), [n], [t])[0] for n, t in zip(NUMBERS, ROWS, strict=True)]
    cpu.choose_instruction_set(instruction_set)
    try:
        for threads in (1, 2, 5):
            together = logits_of(executor(threads), native_cache(), NUMBERS, ROWS)
            assert np.array_equal(together, np.array(alone))
    finally:
        cpu.choose_instruction_set(before)


def test_rows_without_adapter_are_those_of_a_program_without():
    pool = cpu.ThreadPool(2)
    record = program()
    ops = tuple(op for op in record.ops if not isinstance(op, Adapt))
    plain = CpuExecutor(
        Program(record.buffers, KV, ops), WeightStore(TENSORS, pool), pool, max_rows=40, kv_format="float32"
    )
    expected = logits_of(plain, native_cache(), None, ROWS)
    assert np.array_equal(logits_of(executor(), native_cache(), None, ROWS), expected)
    found = logits_of(executor(), native_cache(), NUMBERS, ROWS)
    assert all(np.array_equal(found[row], expected[row]) for row, number in enumerate(NUMBERS) if number < 0)


def as_f32(tensor: Tensor) -> Tensor:
    return replace(tensor, format="F32", stored=tensor.float32().reshape(-1).view(np.uint8))


def test_values_in_half_the_bytes_have_the_same_bits():
    """An adapter of bfloat16 values that is saved as F32 is packed as the other."""
    one = adapter(9, 400, "gate", "up", "down", format="BF16")
    wide = {name: LowRank(as_f32(of.a), as_f32(of.b), of.scale) for name, of in one.items()}
    found = []
    for made in (one, wide):
        pool = cpu.ThreadPool(1)
        given = {"max_rows": 40, "kv_format": "float32", "adapters": [made]}
        run = CpuExecutor(program(), WeightStore(TENSORS, pool), pool, **given)
        found.append(logits_of(run, native_cache(), [0] * 12, ROWS))
    assert np.array_equal(*found)


def test_additions_join_the_fused_calls():
    """None has a pass over its matrix of its own: gate and up stay one call, in front of their activation."""
    calls = executor().native.describe()
    assert calls.count("gated_linear") == 1
    assert "gelu_gate" not in calls
    assert calls.count("linear") == 1
    assert calls.count("project") == 2


def test_only_rows_that_exist_and_adapters_that_are_loaded_are_taken():
    run = executor()
    for numbers, message in (
        ([0, 3], "names adapter 3 of 3"),
        ([-2, 0], "names adapter -2"),
        ([0], "differ in length"),
    ):
        with pytest.raises(ValueError, match=message):
            logits_of(run, native_cache(), numbers, [7, 9])


def test_a_weight_that_no_operation_reads_cannot_be_adapted():
    with pytest.raises(ValueError, match="no linear operation has the weight embed"):
        adapted(program(), {"embed"})
