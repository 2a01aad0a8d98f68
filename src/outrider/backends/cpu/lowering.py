"""Lowers a program to calls of the native core.

This is where CPU-specific decisions are made: matrices are packed; projections of the same input are fused into one
call, as are a gate and its two projections; all but the output rows are dropped as early as possible. The core inserts
the quantization of activations in front of quantized matrices (csrc/program/program.h); where the checkpoint has a
static scale for them, its codes are the ones that are multiplied.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from outrider.arrays import Floats, Ints
from outrider.backends.cpu import KvFormat, kv_shapes
from outrider.backends.cpu import _native as native
from outrider.backends.cpu.weights import WeightStore, low_rank
from outrider.checkpoints.adapters import LowRank
from outrider.program import (
    TARGET,
    Adapt,
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
        adapters: by number, what each adds to matrices, by neutral name.
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
        adapters: Sequence[Mapping[str, LowRank]] = (),
    ) -> None:
        self.native = native.Program(max_rows, kv_shapes(program.kv_layers), kv_format, pool, program.cross_attention)
        """The recorded calls."""
        self._buffers: dict[str, int] = {}
        additions = _packed(adapters, pool)
        _Lowering(program, weights, target_weights, additions, self.native, self._buffers).run()
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
        adapter: Ints | None = None,
    ) -> tuple[Ints, Floats]:
        """See `Executor.run`. Raises ValueError if the rows do not fit, RuntimeError if another thread runs a pass."""
        index, values = embeddings or (None, None)
        return self.native.run(token, sequence, parent, outputs, list(caches), logits, index, values, adapter)

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


class _Projection(NamedTuple):
    """A Linear, whether an Adapt follows it, and the index behind them."""

    op: Linear
    adapts: bool
    end: int


class _Lowering:
    """Records the native calls of a program, each from one or a few operations.

    An Adapt belongs to the call of the Linear in front of it: the additions join its products while they are in the
    processor's caches, and a pass without adapters skips them.

    Args:
        additions: by weight, what adapters add to its products.
    """

    def __init__(
        self,
        program: Program,
        weights: WeightStore,
        target_weights: WeightStore | None,
        additions: Mapping[str, list[native.LowRank]],
        core: native.Program,
        buffers: dict[str, int],
    ) -> None:
        self.program, self.weights, self.target_weights = program, weights, target_weights
        self.additions, self.core, self.buffers = additions, core, buffers

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

        Returns the number of operations, or 0 if those at `at` are others.
        """
        size = self.gated_size(at)
        if size:
            (gate, up), gelu = self.linears(at)[:2], self.program.ops[at + size - 1]
            assert isinstance(gelu, GeluGate)
            weights = self.weights.matrix(gate.op.weight), self.weights.matrix(up.op.weight)
            scales = (
                self.static(gate.op.input_scale),
                self.static(gate.op.output_scale),
                self.static(up.op.output_scale),
            )
            added = [self.added(gate), self.added(up)]
            self.core.gated_linear(self.buffer(gate.op.src), *weights, self.buffer(gelu.dst), *scales, added)
        return size

    def gated_size(self, at: int) -> int:
        """Operations of a gate projection, an up projection and their GELU gate; 0 if those at `at` are others."""
        pair = self.linears(at)[:2]
        end = pair[-1].end if pair else at
        match [one.op for one in pair], self.program.ops[end : end + 1]:
            case [Linear(dst=gate), Linear(dst=up)], [GeluGate(first, second, dst, 0)]:
                fused = (first, second) == (gate, up) and not self.live_after(end + 1, {gate, up} - {dst})
                return end + 1 - at if fused else 0
        return 0

    def projections(self, at: int) -> int:
        """Fuses consecutive projections of the same input into one call with one barrier. Returns the number of
        operations."""
        group, end = list[_Projection](), at
        for one in self.linears(at):
            if group and self.gated_size(end):
                break
            group.append(one)
            end = one.end
        if group:
            first, weights = group[0].op, [self.weights.matrix(one.op.weight) for one in group]
            dst, added = [self.buffer(one.op.dst) for one in group], [self.added(one) for one in group]
            rounded = [self.static(one.op.output_scale) for one in group]
            self.core.linear(self.buffer(first.src), weights, dst, self.static(first.input_scale), rounded, added)
        return end - at

    def linears(self, at: int) -> list[_Projection]:
        """The consecutive projections at `at` of one input, which none of them changes."""
        found, ops = list[_Projection](), self.program.ops
        while at < len(ops) and isinstance(op := ops[at], Linear):
            if found and (not self.share_input(found[0].op, op) or found[-1].op.dst == op.src):
                break
            adapts = ops[at + 1 : at + 2] == (Adapt(op.src, op.weight, op.dst),)
            at += 1 + adapts
            found.append(_Projection(op, adapts, at))
        return found

    def added(self, one: _Projection) -> list[native.LowRank]:
        return self.additions[one.op.weight] if one.adapts else []

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


def _packed(adapters: Sequence[Mapping[str, LowRank]], pool: native.ThreadPool) -> dict[str, list[native.LowRank]]:
    """By weight, what adapters add to its products."""
    packed: dict[str, list[native.LowRank]] = {}
    for number, adapter in enumerate(adapters):
        for weight, part in adapter.items():
            packed.setdefault(weight, []).append(low_rank(number, part, pool))
    return packed


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
