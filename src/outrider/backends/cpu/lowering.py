"""Lowers a program to calls of the native core.

This is where CPU-specific decisions are made: matrices are packed; projections of the same input are fused into one
call, as are a gate and its two projections; all but the output rows are dropped as early as possible. The core inserts
the quantization of activations in front of quantized matrices (csrc/program/program.h); where the checkpoint has a
static scale for them, its codes are the ones that are multiplied.
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
    """Runs a program on the native core. See `executor.Executor`.

    Args:
        weights: of the program's checkpoint.
        max_rows: the most rows of one pass.
        kv_format: storage of keys and values: "float16", "float32" or "int8".
        target_weights: of a drafter's target.
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
        self.native = native.Program(max_rows, kv_shapes(program.kv_layers), kv_format, pool, program.cross_attention)
        """The recorded calls."""
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
        """See `Executor.run`. Raises ValueError if the rows do not fit, RuntimeError if another thread runs a pass."""
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

    def prefetch_weights(self) -> None:
        """Prefetches weights into the CPU caches on the idle threads of the pool, until the next call."""
        self.native.prefetch_weights()


class _Lowering:
    """Records the native calls of a program, each from one or a few operations."""

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
        """Records all calls, in order."""
        ops, first_on_outputs = self.program.ops, _first_on_outputs(self.program)
        at = 0
        while at < len(ops):
            if at == first_on_outputs:
                self.core.keep_outputs([self.buffer(name) for name in _live(ops[at:])])
            at += self.gated(at) or self.projections(at) or self.single(ops[at])

    def gated(self, at: int) -> int:
        """Fuses gate projection, up projection and GELU gate into one call, without buffers between them.

        Returns the number of operations: 3, or 0 if those at `at` are others.
        """
        match self.program.ops[at : at + 3]:
            case [Linear() as gate, Linear() as up, GeluGate(_, _, dst)] if self.is_gated(at):
                weights = self.weights.matrix(gate.weight), self.weights.matrix(up.weight)
                scales = [self.static(name) for name in (gate.input_scale, gate.output_scale, up.output_scale)]
                self.core.gated_linear(self.buffer(gate.src), *weights, self.buffer(dst), *scales)
                return 3
        return 0

    def is_gated(self, at: int) -> bool:
        match self.program.ops[at : at + 3]:
            case [Linear() as gate, Linear() as up, GeluGate(first, second, dst, 0)]:
                same = self.share_input(gate, up) and (first, second) == (gate.dst, up.dst)
                return same and not self.live_after(at + 3, {first, second} - {dst})
        return False

    def projections(self, at: int) -> int:
        """Fuses consecutive projections of the same input into one call with one barrier. Returns their number."""
        first = self.program.ops[at]
        if not isinstance(first, Linear):
            return 0
        group = [first]
        for number, op in enumerate(self.program.ops[at + 1 :], start=at + 1):
            if not isinstance(op, Linear) or not self.share_input(first, op) or self.is_gated(number):
                break
            if group[-1].dst == first.src:
                break
            group.append(op)
        weights, results = [self.weights.matrix(op.weight) for op in group], [self.buffer(op.dst) for op in group]
        rounded = [self.static(op.output_scale) for op in group]
        self.core.linear(self.buffer(first.src), weights, results, self.static(first.input_scale), rounded)
        return len(group)

    def share_input(self, first: Linear, second: Linear) -> bool:
        """Whether two projections read the same buffer, rounded to the same static scale."""
        return first.src == second.src and self.static(first.input_scale) == self.static(second.input_scale)

    def static(self, name: str | None) -> float:
        """A static scale of activations; 0 for none."""
        return 0.0 if name is None else self.weights.scalar(name)

    def live_after(self, at: int, names: set[str]) -> bool:
        return bool(names & set(_live(self.program.ops[at:]))) or bool(names & self.program.every_row)

    def single(self, op: Op) -> int:
        """Records one operation as one call, by the method of its kind. Returns 1."""
        getattr(self, op.kind)(op)
        return 1

    def buffer(self, name: str) -> int:
        """The core's number of a buffer; creates the buffer on first use."""
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
        scales = self.static(op.input_scale), self.static(op.output_scale)
        self.core.head(self.buffer(op.src), self.weights.matrix(op.weight), op.softcap, *scales)


def _first_on_outputs(program: Program) -> int | None:
    """The index of the first operation that needs only the output rows, which is the one after the last StoreKv and the
    last write to a buffer in `every_row`. None if the program has no Head, which alone has outputs.

    In E2B, 20 of 35 layers reuse earlier keys and values, so the other rows of a prompt are dropped within layer 15.
    """
    ops = program.ops
    if not any(isinstance(op, Head) for op in ops):
        return None
    on_all = [at for at, op in enumerate(ops) if isinstance(op, StoreKv) or program.every_row.intersection(op.writes)]
    return max(on_all, default=-1) + 1


def _live(ops: Sequence[Op]) -> Iterator[str]:
    """Live buffers: those that these operations read before they write them."""
    live: dict[str, None] = {}
    written: set[str] = set()
    for op in ops:
        live |= dict.fromkeys(name for name in op.reads if name not in written)
        written.update(op.writes)
    return iter(live)
