"""From a program to the calls of the native core.

What only this executor needs is done here: matrices are packed, projections of one input become one call, a gate with
its two projections another, and where nothing more is wanted of the other rows, only rows with an output go on. The
core itself quantizes activations in front of a packed matrix (csrc/program/program.h).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from outrider.arrays import Floats, Ints
from outrider.backends.cpu import KvFormat, kv_shapes
from outrider.backends.cpu import _native as native
from outrider.backends.cpu.weights import WeightStore
from outrider.program import (
    TARGET,
    Add,
    Attention,
    ClusterLinear,
    CombineExperts,
    Copy,
    ExpertGated,
    ExpertLinear,
    Gather,
    GeluGate,
    Head,
    HeadNorm,
    Linear,
    Multiply,
    Op,
    Program,
    RmsNorm,
    RopeTable,
    Route,
    Scale,
    StoreKv,
    Turn,
)
from outrider.rope import inverse_frequencies


class CpuExecutor:
    """A program that the native core runs. See `executor.Executor`.

    Args:
        weights: of the program's checkpoint; target_weights: of a drafter's target.
        max_rows: most rows of one pass.
        kv_format: how keys and values are kept: "float16", "float32" or "int8".
    """

    def __init__(
        self,
        program: Program,
        weights: WeightStore,
        pool: native.ThreadPool,
        *,
        max_rows: int,
        kv_format: KvFormat,
        target_weights: WeightStore | None = None,
    ) -> None:
        self.native = native.Program(max_rows, kv_shapes(program.kv_layers), kv_format, pool, program.reader)
        """The core's recorded calls."""
        self._buffers: dict[str, int] = {}
        _Lowering(program, weights, target_weights, self.native, self._buffers).run()
        self.max_rows = max_rows
        self.vocabulary: int = self.native.vocabulary

    def run(
        self,
        token: Ints,
        sequence: Ints,
        parent: Ints,
        outputs: Ints,
        caches: Sequence[native.KvCache],
        logits: Floats | None = None,
        embeddings: tuple[Ints, Floats] | None = None,
    ) -> tuple[Ints, Floats]:
        """See `Executor.run`. Raises ValueError if the rows do not fit, RuntimeError if another thread is in a pass."""
        return self.native.run(token, sequence, parent, outputs, list(caches), logits, *(embeddings or (None, None)))

    def read(self, buffer: str, rows: int) -> Floats:
        """See `Executor.read`."""
        return self.native.read(self._buffers[buffer], rows)

    def write(self, buffer: str, values: Floats) -> None:
        """See `Executor.write`."""
        self.native.write(self._buffers[buffer], values)

    def chosen(self, rows: int, top_k: int) -> Ints:
        """See `Executor.chosen`."""
        return self.native.chosen(rows, top_k)

    def warm(self) -> None:
        """Prefetches weights into the CPU caches on the idle threads of the pool, until the next call."""
        self.native.warm()


class _Lowering:
    """Makes the core's calls, one or a few operations at a time."""

    def __init__(
        self,
        program: Program,
        weights: WeightStore,
        target_weights: WeightStore | None,
        core: native.Program,
        buffers: dict[str, int],
    ) -> None:
        self.program, self.weights, self.target_weights = program, weights, target_weights
        self.core, self.buffers = core, buffers

    def run(self) -> None:
        """All calls, in order."""
        ops, narrow_from = self.program.ops, _narrow_from(self.program)
        at = 0
        while at < len(ops):
            if at == narrow_from:
                self.core.keep_outputs([self.buffer(name) for name in _still_needed(ops[at:])])
            at += self.gated(at) or self.projections(at) or self.single(ops[at])

    def gated(self, at: int) -> int:
        """Gate and up projections of one input with the gate itself: one call, without buffers for the two."""
        match self.program.ops[at : at + 3]:
            case [Linear(src, gate_weight), Linear(_, up_weight), GeluGate(_, _, dst)] if self.is_gated(at):
                weights = self.weights.matrix(gate_weight), self.weights.matrix(up_weight)
                self.core.gated_linear(self.buffer(src), *weights, self.buffer(dst))
                return 3
        return 0

    def is_gated(self, at: int) -> bool:
        match self.program.ops[at : at + 3]:
            case [Linear(src, _, gate), Linear(other, _, up), GeluGate(first, second, dst, 0)]:
                same = src == other and (first, second) == (gate, up)
                return same and not self.needed_after(at + 3, {gate, up} - {dst})
        return False

    def projections(self, at: int) -> int:
        """Projections of one input that follow each other: one call, so that threads meet once."""
        first = self.program.ops[at]
        if not isinstance(first, Linear):
            return 0
        group = [first]
        for number, op in enumerate(self.program.ops[at + 1 :], start=at + 1):
            if not isinstance(op, Linear) or op.src != first.src or group[-1].dst == first.src or self.is_gated(number):
                break
            group.append(op)
        weights = [self.weights.matrix(op.weight) for op in group]
        self.core.linear(self.buffer(first.src), weights, [self.buffer(op.dst) for op in group])
        return len(group)

    def needed_after(self, at: int, names: set[str]) -> bool:
        return bool(names & set(_still_needed(self.program.ops[at:]))) or bool(names & self.program.every_row)

    def single(self, op: Op) -> int:
        """One operation as one call: the method of its kind."""
        getattr(self, op.kind)(op)
        return 1

    def buffer(self, name: str) -> int:
        """The core's number of a buffer, which is made when it is first named."""
        if name not in self.buffers:
            buffer = self.program.buffer(name)
            self.buffers[name] = self.core.buffer(name, buffer.width, buffer.rows_per_row)
        return self.buffers[name]

    def vector(self, name: str | None) -> Floats | None:
        return None if name is None else self.weights.vector(name)

    # -- one method for each kind of operation -----------------------------------------------------------------------

    def gather(self, op: Gather) -> None:
        store, name = self.weights, op.table
        if name.startswith(TARGET):
            assert self.target_weights is not None, "a drafter's program needs its target's weights"
            store, name = self.target_weights, name.removeprefix(TARGET)
        self.core.gather(store.table(name), op.scale, self.buffer(op.dst), op.embeddings)

    def rms_norm(self, op: RmsNorm) -> None:
        self.core.rms_norm(self.buffer(op.src), self.vector(op.weight), op.eps, self.buffer(op.dst))

    def head_norm(self, op: HeadNorm) -> None:
        weight, dst = self.vector(op.weight), self.buffer(op.dst)
        self.core.head_norm(self.buffer(op.src), weight, op.eps, op.heads, op.head_dim, dst)

    def add(self, op: Add) -> None:
        self.core.add(self.buffer(op.src), self.buffer(op.dst))

    def scale(self, op: Scale) -> None:
        self.core.scale(self.buffer(op.dst), op.factor if op.weight is None else self.weights.scalar(op.weight))

    def multiply(self, op: Multiply) -> None:
        self.core.multiply(self.buffer(op.dst), self.weights.vector(op.weight) * np.float32(op.factor))

    def gelu_gate(self, op: GeluGate) -> None:
        self.core.gelu_gate(self.buffer(op.gate), self.buffer(op.up), op.offset, self.buffer(op.dst))

    def rope_table(self, op: RopeTable) -> None:
        self.core.rope_table(inverse_frequencies(op.rope), self.buffer(op.dst))

    def turn(self, op: Turn) -> None:
        self.core.rope(self.buffer(op.dst), self.buffer(op.table), op.heads, op.head_dim, op.scale)

    def store_kv(self, op: StoreKv) -> None:
        self.core.store_kv(self.buffer(op.key), self.buffer(op.value), op.layer)

    def attention(self, op: Attention) -> None:
        self.core.attention(self.buffer(op.query), op.layer, op.heads, self.buffer(op.dst))

    def copy(self, op: Copy) -> None:
        self.core.copy(self.buffer(op.src), self.buffer(op.dst), op.offset)

    def route(self, op: Route) -> None:
        count = self.program.buffer(op.src).width
        scale = np.ones(count, np.float32) if op.scale is None else self.weights.vector(op.scale)
        self.core.route(self.buffer(op.src), op.top_k, scale, self.buffer(op.dst))

    def expert_gated(self, op: ExpertGated) -> None:
        weight = self.weights.matrix(op.weight)
        self.core.expert_gated_linear(self.buffer(op.src), op.top_k, weight, self.buffer(op.dst))

    def expert_linear(self, op: ExpertLinear) -> None:
        self.core.expert_linear(self.buffer(op.src), op.top_k, self.weights.matrix(op.weight), self.buffer(op.dst))

    def combine_experts(self, op: CombineExperts) -> None:
        self.core.combine_experts(self.buffer(op.src), self.buffer(op.share), op.top_k, self.buffer(op.dst))

    def cluster_linear(self, op: ClusterLinear) -> None:
        ordering = self.weights.integers(op.ordering).reshape(op.clusters, -1)
        clusters = self.weights.reordered(op.weight, ordering)
        self.core.cluster_linear(self.buffer(op.src), op.top_k, clusters, self.buffer(op.dst))

    def head(self, op: Head) -> None:
        self.core.head(self.buffer(op.src), self.weights.matrix(op.weight), op.softcap)


def _narrow_from(program: Program) -> int | None:
    """Index of the first operation that needs only output rows: the one after the last StoreKv and the last write to a
    buffer in `every_row`. None if the program has no Head, as only a Head has outputs.

    In E2B, 20 of 35 layers reuse earlier keys and values, so a prompt's other rows stop within layer 15.
    """
    ops = program.ops
    if not any(isinstance(op, Head) for op in ops):
        return None
    for_all = [at for at, op in enumerate(ops) if isinstance(op, StoreKv) or program.every_row.intersection(op.writes)]
    return max(for_all, default=-1) + 1


def _still_needed(ops: Sequence[Op]) -> Iterator[str]:
    """Buffers that these operations read before they write them."""
    needed: dict[str, None] = {}
    written: set[str] = set()
    for op in ops:
        needed |= dict.fromkeys(name for name in op.reads if name not in written)
        written.update(op.writes)
    return iter(needed)
