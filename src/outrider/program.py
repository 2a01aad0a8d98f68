"""A forward pass as data: operations over named buffers, in the order in which they run.

Models record it (`models`), an executor runs it (`backends`), `outrider inspect --program` prints it. It names weights
by their neutral names, cache layers by number and buffers by name, and depends on no backend. What only one processor
needs (quantizing activations, fusing, packing weights, dropping rows early) is done when an executor lowers it.

A pass computes rows: each is a token, or an embedding in place of one, at a position of a sequence. Row r of a buffer
belongs to row r of the pass. Buffers are float32, (rows, width), or (rows * rows_per_row, width).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Container
from dataclasses import dataclass, fields
from typing import ClassVar

from outrider.checkpoints.config import Rope

_OPTIONAL = ("input_scale", "output_scale")
"""Fields that are printed only where they are set."""

TARGET = "target."
"""In front of the name of a weight that a drafter shares with its target."""


@dataclass(frozen=True)
class Buffer:
    """Values of a pass. Layers share buffers: each is done with one before the next begins."""

    name: str
    width: int
    rows_per_row: int = 1


@dataclass(frozen=True)
class KvLayer:
    """A layer of the key-value cache. `window`: the positions that a sliding layer sees, 0 for a full one."""

    kv_heads: int
    head_dim: int
    window: int


class Op:
    """An operation. `READS` and `WRITES` are the fields that name buffers; some operations read what they write."""

    READS: ClassVar[tuple[str, ...]] = ("src",)
    WRITES: ClassVar[tuple[str, ...]] = ("dst",)

    @property
    def reads(self) -> tuple[str, ...]:
        """The buffers whose values it needs."""
        return tuple(getattr(self, name) for name in self.READS)

    @property
    def writes(self) -> tuple[str, ...]:
        """The buffers that it changes."""
        return tuple(getattr(self, name) for name in self.WRITES)

    @property
    def kind(self) -> str:
        """Its name as text: `rms_norm` of RmsNorm."""
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(self).__name__).lower()

    def __str__(self) -> str:
        values = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        shown = [f"{name}={_shown(value)}" for name, value in values.items() if value or name not in _OPTIONAL]
        return f"{self.kind:<19}" + "  ".join(shown)


@dataclass(frozen=True)
class Gather(Op):
    """dst = table[token] * scale. With `embeddings`, a row that carries an embedding gets that instead, unscaled."""

    READS = ()
    table: str
    scale: float
    dst: str
    embeddings: bool = False


@dataclass(frozen=True)
class RmsNorm(Op):
    """dst = src / sqrt(mean(src^2) + eps) * weight (Zhang and Sennrich 2019); no weight means 1."""

    src: str
    weight: str | None
    eps: float
    dst: str


@dataclass(frozen=True)
class HeadNorm(Op):
    """As RmsNorm, over each head on its own; the weight has head_dim values."""

    src: str
    weight: str | None
    eps: float
    heads: int
    head_dim: int
    dst: str


@dataclass(frozen=True)
class Add(Op):
    """dst += src"""

    READS = ("src", "dst")
    src: str
    dst: str


@dataclass(frozen=True)
class Scale(Op):
    """dst *= factor, or *= the one value of `weight` if that is named."""

    READS = ("dst",)
    dst: str
    factor: float = 1.0
    weight: str | None = None


@dataclass(frozen=True)
class Multiply(Op):
    """dst *= weight * factor, the weight being a vector of dst's width."""

    READS = ("dst",)
    dst: str
    weight: str
    factor: float = 1.0


@dataclass(frozen=True)
class GeluGate(Op):
    """dst = gelu(gate) * up[offset : offset + width of gate], GELU in its tanh form (Hendrycks and Gimpel 2016)."""

    READS = ("gate", "up")
    gate: str
    up: str
    dst: str
    offset: int = 0


@dataclass(frozen=True)
class RopeTable(Op):
    """dst = cosines, then sines, of position * frequency, for each pair of a head's dimensions."""

    READS = ()
    rope: Rope
    dst: str


@dataclass(frozen=True)
class Turn(Op):
    """Rotary position embedding (RoPE, Su et al. 2021) of each head of dst, pairs (i, i + dims/2), times `scale`."""

    READS = ("dst", "table")
    dst: str
    table: str
    heads: int
    head_dim: int
    scale: float = 1.0


@dataclass(frozen=True)
class StoreKv(Op):
    """Stages the row's keys and values, (kv_heads * head_dim) each, in a layer of the cache."""

    READS = ("key", "value")
    WRITES = ()
    key: str
    value: str
    layer: int


@dataclass(frozen=True)
class Attention(Op):
    """dst = softmax(query . keys) values, over committed positions of a layer and the row's own ancestors.

    The query is scaled already. Heads share the keys and values of their group (Ainslie et al. 2023).
    """

    READS = ("query",)
    query: str
    layer: int
    heads: int
    dst: str


@dataclass(frozen=True)
class Linear(Op):
    """dst = weight src, the weight being (width of dst, width of src).

    `input_scale` and `output_scale` name tensors of one value, the static scale to whose int8 grid the input or the
    result is rounded first: x becomes round(x / scale) * scale, ties to even, within -128 and 127 scales. A scale of 0
    rounds nothing.
    """

    src: str
    weight: str
    dst: str
    input_scale: str | None = None
    output_scale: str | None = None


@dataclass(frozen=True)
class Copy(Op):
    """dst[offset : offset + width of src] = src"""

    READS = ("src", "dst")
    src: str
    dst: str
    offset: int = 0


@dataclass(frozen=True)
class Route(Op):
    """The top_k largest of softmax(src), ties to the lower index: their indices to `chosen`, and to dst their shares,
    scaled to sum 1 and then by `scale` of each."""

    WRITES = ("chosen", "dst")
    src: str
    top_k: int
    scale: str | None
    chosen: str
    dst: str


@dataclass(frozen=True)
class ExpertLinear(Op):
    """dst = weight[expert] src for each chosen expert; src and dst have top_k rows a row."""

    READS = ("src", "chosen")
    src: str
    chosen: str
    top_k: int
    weight: str
    dst: str


@dataclass(frozen=True)
class ExpertGated(ExpertLinear):
    """dst = gelu(gate src) * (up src) for each chosen expert: gate and up are the halves of its matrix in `weight`."""


@dataclass(frozen=True)
class CombineExperts(Op):
    """dst = sum of the row's top_k rows of src, each times its share."""

    READS = ("src", "share")
    src: str
    share: str
    top_k: int
    dst: str


@dataclass(frozen=True)
class ClusterLinear(Op):
    """dst = scores of the tokens of each chosen cluster: rows ordering[cluster] of `weight`, top_k rows a row."""

    READS = ("src", "chosen")
    src: str
    chosen: str
    top_k: int
    weight: str
    ordering: str
    clusters: int
    dst: str


@dataclass(frozen=True)
class Head(Op):
    """The logits of output rows: weight src, then softcap * tanh(logit / softcap) unless that is 0.

    The scales are those of Linear.
    """

    WRITES = ()
    src: str
    weight: str
    softcap: float
    input_scale: str | None = None
    output_scale: str | None = None


@dataclass(frozen=True)
class Program:
    """A recorded pass.

    After a pass, the buffers in `every_row` hold values of every row, others only of rows with an output. With
    `cross_attention` (to the target's cache) rows store no keys and values: each has the first free position of its
    sequence and attends to all committed positions.
    """

    buffers: tuple[Buffer, ...]
    kv_layers: tuple[KvLayer, ...]
    ops: tuple[Op, ...]
    every_row: frozenset[str] = frozenset()
    cross_attention: bool = False

    def buffer(self, name: str) -> Buffer:
        """The buffer of that name."""
        return next(buffer for buffer in self.buffers if buffer.name == name)

    def __str__(self) -> str:
        rows = [f"buffer             {b.name}  width={b.width}" + _per_row(b) for b in self.buffers]
        layers = [
            f"kv_layer           {number}  kv_heads={kv.kv_heads}  head_dim={kv.head_dim}  window={kv.window or 'none'}"
            for number, kv in enumerate(self.kv_layers)
        ]
        return "\n".join([*rows, *layers, *map(str, self.ops)])


class Recorder:
    """Collects the buffers and operations of a program.

    Args:
        names: of the checkpoint's tensors; they decide the variant.
    """

    def __init__(self, names: Container[str], kv_layers: tuple[KvLayer, ...]) -> None:
        self.names, self.kv_layers = names, kv_layers
        self._buffers: dict[str, Buffer] = {}
        self._ops: list[Op] = []

    def buffer(self, name: str, width: int, rows_per_row: int = 1) -> str:
        """The name of a buffer; the same for the same width, with the width in it where another has the plain name."""
        known = self._buffers.setdefault(name, Buffer(name, width, rows_per_row))
        if known == Buffer(name, width, rows_per_row):
            return name
        return self.buffer(f"{name} {width}", width, rows_per_row)

    def __call__(self, *ops: Op) -> None:
        """Appends operations.

        Raises:
            ValueError: one names a buffer that does not exist.
        """
        for op in ops:
            for name in (*op.reads, *op.writes):
                if name not in self._buffers:
                    raise ValueError(f"{type(op).__name__} names {name!r}, which is no buffer")
            self._ops.append(op)

    def program(self, *, every_row: Collection[str] = (), cross_attention: bool = False) -> Program:
        """What was recorded."""
        return Program(
            tuple(self._buffers.values()), self.kv_layers, tuple(self._ops), frozenset(every_row), cross_attention
        )


def _shown(value: object) -> str:
    return f"{value:.8g}" if isinstance(value, float) else str(value)


def _per_row(buffer: Buffer) -> str:
    return f"  rows_per_row={buffer.rows_per_row}" if buffer.rows_per_row > 1 else ""
