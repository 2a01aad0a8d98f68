"""Runs a program in numpy, in float32: each operation as `program` defines it, over all rows of a pass."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from outrider.arrays import Floats, Ints
from outrider.backends.reference.cache import ReferenceCache
from outrider.checkpoints.checkpoint import Tensor
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
    Program,
    RmsNorm,
    RopeTable,
    Route,
    Scale,
    StoreKv,
    Turn,
)
from outrider.rope import inverse_frequencies


class ReferenceExecutor:
    """Runs a program in numpy. See `executor.Executor`.

    Args:
        tensors: the checkpoint's tensors by neutral name, none of them in blocks.
        target_tensors: those of a drafter's target.
        max_rows: the most rows of one pass.
    """

    def __init__(
        self,
        program: Program,
        tensors: Mapping[str, Tensor],
        *,
        target_tensors: Mapping[str, Tensor] | None = None,
        max_rows: int = 64,
    ) -> None:
        self._program, self._tensors = program, tensors
        self._target_tensors = target_tensors or {}
        self._values: dict[str, Any] = {}  # by buffer, of the last pass
        self._cached: dict[str, Floats] = {}
        self.max_rows = max_rows
        tables = [self._weight(op.table) for op in program.ops if isinstance(op, Gather)]
        self.vocabulary = min(len(table) for table in tables)

    def run(
        self,
        token: Ints,
        sequence: Ints,
        parent: Ints,
        outputs: Ints,
        caches: list[ReferenceCache],
        logits: Floats | None = None,
        embeddings: tuple[Ints, Floats] | None = None,
    ) -> tuple[Ints, Floats]:
        """See `Executor.run`."""
        self._token, self._outputs = token, outputs
        self._embeddings = embeddings
        self._rows = [_Row(caches[s], r, int(np.flatnonzero(sequence == s)[0])) for r, s in enumerate(sequence)]
        for row, parent_row in zip(self._rows, parent.tolist(), strict=True):
            if self._program.cross_attention:
                row.position = row.cache.length
            else:
                row.path = [*(self._rows[parent_row].path if parent_row >= 0 else []), row.local]
                row.position = row.cache.length + len(row.path) - 1
        self._best = np.zeros(len(outputs), np.int32), np.zeros(len(outputs), np.float32)
        self._logits = logits
        for op in self._program.ops:
            getattr(self, f"_{op.kind}")(op)
        return self._best

    def read(self, buffer: str, rows: int) -> Floats:
        """See `Executor.read`."""
        values: Floats = self._values[buffer]
        if buffer not in self._program.every_row:  # holds the output rows after a pass
            values = values[self._outputs]
        return values[:rows].copy()

    def write(self, buffer: str, values: Floats) -> None:
        """See `Executor.write`."""
        self._values[buffer] = values.copy()

    def chosen(self, rows: int, top_k: int) -> Ints:
        """See `Executor.chosen`."""
        chosen: Ints = self._values["chosen"].astype(np.int32)
        return chosen[:rows, :top_k]

    def prefetch_weights(self) -> None:
        """Does nothing."""

    def _weight(self, name: str) -> Floats:
        if name not in self._cached:
            tensors = self._target_tensors if name.startswith(TARGET) else self._tensors
            self._cached[name] = tensors[name.removeprefix(TARGET)].float32()
        return self._cached[name]

    # -- one method for each kind of operation -----------------------------------------------------------------------

    def _gather(self, op: Gather) -> None:
        rows = self._weight(op.table)[self._token] * np.float32(op.scale)
        if op.embeddings and self._embeddings is not None:
            index, embeddings = self._embeddings
            rows[index >= 0] = embeddings[index[index >= 0]]
        self._values[op.dst] = rows

    def _rms_norm(self, op: RmsNorm) -> None:
        self._values[op.dst] = self._normed(self._values[op.src], op.weight, op.eps)

    def _head_norm(self, op: HeadNorm) -> None:
        heads = self._values[op.src].reshape(-1, op.heads, op.head_dim)
        self._values[op.dst] = self._normed(heads, op.weight, op.eps).reshape(len(heads), -1)

    def _normed(self, x: Floats, weight: str | None, eps: float) -> Floats:
        scaled: Floats = x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + np.float32(eps))
        return scaled if weight is None else scaled * self._weight(weight).reshape(-1)

    def _add(self, op: Add) -> None:
        self._values[op.dst] = self._values[op.dst] + self._values[op.src]

    def _scale(self, op: Scale) -> None:
        factor = op.factor if op.weight is None else self._weight(op.weight).reshape(())
        self._values[op.dst] = self._values[op.dst] * np.float32(factor)

    def _multiply(self, op: Multiply) -> None:
        self._values[op.dst] = self._values[op.dst] * (self._weight(op.weight).reshape(-1) * np.float32(op.factor))

    def _gelu_gate(self, op: GeluGate) -> None:
        gate = self._values[op.gate]
        up = self._values[op.up][:, op.offset : op.offset + gate.shape[1]]
        self._values[op.dst] = _gelu(gate) * up

    def _rope_table(self, op: RopeTable) -> None:
        positions = np.array([row.position for row in self._rows], np.float32)
        angles = positions[:, None] * inverse_frequencies(op.rope)
        self._values[op.dst] = np.concatenate([np.cos(angles), np.sin(angles)], axis=1)

    def _turn(self, op: Turn) -> None:
        heads = self._values[op.dst].reshape(-1, op.heads, 2, op.head_dim // 2)
        cosine, sine = np.split(self._values[op.table][:, None], 2, axis=-1)
        first, second = heads[:, :, 0], heads[:, :, 1]
        turned = np.stack([first * cosine - second * sine, second * cosine + first * sine], axis=2)
        self._values[op.dst] = (turned * np.float32(op.scale)).reshape(len(heads), -1)

    def _store_kv(self, op: StoreKv) -> None:
        layer = self._program.kv_layers[op.layer]
        shape = (-1, layer.kv_heads, layer.head_dim)
        keys, values = self._values[op.key].reshape(shape), self._values[op.value].reshape(shape)
        for cache in {id(row.cache): row.cache for row in self._rows}.values():
            own = [row.number for row in self._rows if row.cache is cache]
            cache.stage(op.layer, keys[own], values[own])

    def _attention(self, op: Attention) -> None:
        layer = self._program.kv_layers[op.layer]
        queries = self._values[op.query].reshape(-1, layer.kv_heads, op.heads // layer.kv_heads, layer.head_dim)
        mixed = np.empty_like(queries)
        for row, query in zip(self._rows, queries, strict=True):
            keys, values = row.cache.attended(op.layer, row.path)
            if layer.window:
                keys, values = keys[-layer.window :], values[-layer.window :]
            scores = np.einsum("hgd,phd->hgp", query, keys)
            mixed[row.number] = np.einsum("hgp,phd->hgd", _softmax(scores), values)
        self._values[op.dst] = mixed.reshape(len(queries), -1)

    def _linear(self, op: Linear) -> None:
        self._values[op.dst] = self._product(op)

    def _product(self, op: Linear | Head) -> Floats:
        """weight src, both sides rounded to their static scales."""
        source = self._rounded(self._values[op.src], op.input_scale)
        return self._rounded(source @ self._weight(op.weight).T, op.output_scale)

    def _rounded(self, x: Floats, name: str | None) -> Floats:
        scale = np.float32(0) if name is None else self._weight(name).reshape(())
        return x if scale == 0 else np.clip(np.round(x / scale), -128, 127) * scale

    def _copy(self, op: Copy) -> None:
        source, width = self._values[op.src], self._program.buffer(op.dst).width
        target = self._values.get(op.dst)
        if target is None or target.shape != (len(source), width):
            target = np.zeros((len(source), width), np.float32)
        target[:, op.offset : op.offset + source.shape[1]] = source
        self._values[op.dst] = target

    def _route(self, op: Route) -> None:
        probabilities = _softmax(self._values[op.src])
        chosen = np.argsort(-probabilities, axis=1, kind="stable")[:, : op.top_k]
        weights = np.take_along_axis(probabilities, chosen, axis=1)
        weights = weights / weights.sum(axis=1, keepdims=True)
        self._values[op.chosen] = chosen
        self._values[op.dst] = weights if op.scale is None else weights * self._weight(op.scale).reshape(-1)[chosen]

    def _expert_gated(self, op: ExpertGated) -> None:
        rows = self._values[op.src].repeat(op.top_k, axis=0)
        gate, up = np.split(self._by_choice(rows, op.chosen, op.weight), 2, axis=1)
        self._values[op.dst] = _gelu(gate) * up

    def _expert_linear(self, op: ExpertLinear) -> None:
        self._values[op.dst] = self._by_choice(self._values[op.src], op.chosen, op.weight)

    def _by_choice(self, x: Floats, chosen: str, weight: str) -> Floats:
        """Each of (rows * top_k) rows times the matrix chosen for it."""
        matrices = self._weight(weight)[self._values[chosen].reshape(-1)]
        result: Floats = np.einsum("rij,rj->ri", matrices, x)
        return result

    def _combine_experts(self, op: CombineExperts) -> None:
        parts = self._values[op.src].reshape(-1, op.top_k, self._program.buffer(op.src).width)
        self._values[op.dst] = np.sum(parts * self._values[op.share][:, :, None], axis=1)

    def _cluster_linear(self, op: ClusterLinear) -> None:
        ordering = self._tensors[op.ordering].data.view(np.int32).reshape(op.clusters, -1)
        tokens = ordering[self._values[op.chosen]]  # (rows, top_k, cluster size)
        scores = np.einsum("rkcd,rd->rkc", self._weight(op.weight)[tokens], self._values[op.src])
        self._values[op.dst] = scores.reshape(-1, scores.shape[-1])

    def _head(self, op: Head) -> None:
        raw = self._product(op)[self._outputs]
        best = np.argmax(raw, axis=1).astype(np.int32)
        self._best = best, raw[np.arange(len(raw)), best]
        if self._logits is not None:
            cap = np.float32(op.softcap)
            self._logits[:] = raw if op.softcap == 0.0 else cap * np.tanh(raw / cap)


class _Row:
    """A row of a pass: its cache, its number in the pass and within its sequence, and its path of staged rows."""

    def __init__(self, cache: ReferenceCache, number: int, first: int) -> None:
        self.cache, self.number, self.local = cache, number, number - first
        self.path: Sequence[int] = []
        self.position = 0


def _softmax(x: Floats) -> Floats:
    weights = np.exp(x - x.max(axis=-1, keepdims=True))
    probabilities: Floats = weights / weights.sum(axis=-1, keepdims=True)
    return probabilities


def _gelu(x: Floats) -> Floats:
    half = np.float32(0.5) * x
    result: Floats = half * (1 + np.tanh(np.float32(math.sqrt(2 / math.pi)) * (x + np.float32(0.044715) * x**3)))
    return result
