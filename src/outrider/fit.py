"""Whether a model fits into memory: what it needs, and what would fit instead. Nothing is read but shapes."""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from outrider.backends.cpu import KvFormat
from outrider.backends.cpu.weights import packed_bytes as packed
from outrider.cache import cache_bytes
from outrider.checkpoints.checkpoint import Tensor
from outrider.checkpoints.config import ModelConfig
from outrider.checkpoints.traffic import is_swept
from outrider.engine.prefill import PREFILL_CHUNK
from outrider.errors import UsageError
from outrider.machine import Memory, size
from outrider.models.gemma import kv_layers, record_gemma
from outrider.quant import QUANTIZATIONS, Quantization
from outrider.quant.packs import block_format
from outrider.speculation.costs import MOST_ROWS

_log = logging.getLogger("outrider.loading")
_TOKENIZER_BYTES = 600
"""Of a token of the vocabulary, in the tokenizer's tables (Gemma 3's 262,144 tokens: 150 MB)."""
_BUFFER_BYTES = 7.5
"""Of a value in the buffers of a pass: float32, and for most its quantized copy, that one's digits, which AVX2
reads, and its panels, which AMX reads."""
USUAL_CONTEXT = 4096
"""A model whose own limit does not fit is loaded all the same if this does: pages are taken as a sequence grows."""
_CONTEXT_STEP = 256
_SMALLER = "a smaller model or one in fewer bits, or close other programs"
_FEWER = " close other programs for longer ones"


@dataclass(frozen=True)
class Needs:
    """Bytes of memory: packed weights (tables of which passes gather rows stay in the file), keys and values of one
    sequence that fills the context, and buffers with the tokenizer's tables."""

    weights: int
    cache: int
    buffers: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.cache + self.buffers

    def __str__(self) -> str:
        parts = ("weights", self.weights), ("keys and values", self.cache), ("buffers", self.buffers)
        return f"{size(self.total)} of memory ({', '.join(f'{what} {size(count)}' for what, count in parts)})"


@dataclass(frozen=True)
class Setting:
    """What decides how much memory a model takes."""

    context: int
    kv_format: KvFormat = "int8"
    quantize: Quantization | None = None


class Footprint:
    """What a model takes.

    Args:
        config: of the model.
        tensors: of its checkpoint.
        drafter: those of its drafter.
    """

    def __init__(self, config: ModelConfig, tensors: Mapping[str, Tensor], drafter: Mapping[str, Tensor]) -> None:
        self._config = config
        self._tensors = {**tensors, **{f"drafter.{name}": tensor for name, tensor in drafter.items()}}
        widths = sum(buffer.width * buffer.rows_per_row for buffer in record_gemma(config, tensors).buffers)
        of_vocabulary = config.vocab_size * (_TOKENIZER_BYTES + 4 * MOST_ROWS)
        self._buffers = round(widths * PREFILL_CHUNK * _BUFFER_BYTES) + of_vocabulary

    def needs(self, setting: Setting) -> Needs:
        """What it takes in a setting."""
        weights = packed_bytes(self._tensors, setting.quantize)
        return Needs(weights, self._cache_bytes(setting.context, setting.kv_format), self._buffers)

    def largest_context(self, available: int, kv_format: KvFormat, quantize: Quantization | None) -> int:
        """The most positions of one request that fit into the available bytes, rounded down; 0 for none."""
        left = available - self.needs(Setting(0, kv_format, quantize)).total
        contexts = range(_CONTEXT_STEP, self._config.context_length, _CONTEXT_STEP)
        steps = [*contexts, self._config.context_length]
        fitting = bisect_right(steps, left, key=lambda context: self._cache_bytes(context, kv_format))
        return steps[fitting - 1] if fitting else 0

    def quantizations(self) -> list[Quantization]:
        """Those that make it smaller, the largest first."""
        smaller = {to: packed_bytes(self._tensors, to) for to in QUANTIZATIONS}
        whole = packed_bytes(self._tensors)
        return sorted((to for to in QUANTIZATIONS if smaller[to] < whole), key=lambda to: -smaller[to])

    def _cache_bytes(self, context: int, kv_format: KvFormat) -> int:
        return cache_bytes(kv_layers(self._config), context, PREFILL_CHUNK, kv_format)


def packed_bytes(tensors: Mapping[str, Tensor], quantize: Quantization | None = None) -> int:
    """Bytes of the matrices that passes read whole, once they are packed."""
    total = 0
    for name, tensor in tensors.items():
        if is_swept(name, tensors):
            total += packed(tensor, block_format(tensor, quantize) if quantize else None)
    return total


def check_fit(name: str, footprint: Footprint, setting: Setting, memory: Memory, *, asked: bool) -> None:
    """Refuses a model that does not fit before it is read; warns if it fits only with swap, or not with every request.

    Args:
        name: of the model, for the sentence.
        setting: of the load; `asked` is whether its context was asked for, and is not merely the model's own limit.

    Raises:
        UsageError: it does not fit; the sentence has the settings that do.
    """
    usual = min(setting.context, USUAL_CONTEXT)
    least = setting if asked else Setting(usual, setting.kv_format, setting.quantize)
    whole, needed = footprint.needs(setting), footprint.needs(least)
    limit = " of the container's limit" if memory.contained else ""
    left = f"{size(memory.available)}{limit} are available"
    _log.info("%s needs %s at %d tokens; %s", name, whole, setting.context, left)
    if whole.total <= memory.available:
        return
    if needed.total <= memory.available:
        longest = footprint.largest_context(memory.available, setting.kv_format, setting.quantize)
        remedies = [" for longer ones use ", " or ".join(_remedies(footprint, setting, memory.available, longest))]
        problem = f"{name}: a request of {setting.context:,} tokens needs {whole}, and {left}"
        _log.warning(
            "%s: up to %s tokens fit;%s", problem, f"{longest:,}", "".join(remedies if remedies[1] else _FEWER)
        )
        return
    remedy = " or ".join(_remedies(footprint, setting, memory.available)) or _SMALLER
    problem = f"{name} needs {needed} at {least.context:,} tokens, and {left}"
    if memory.swap is not None and needed.total > memory.available + memory.swap:
        raise UsageError(f"{problem}: use {remedy}")
    _log.warning("%s: it may be swapped out, which is slow; use %s", problem, remedy)


def _remedies(footprint: Footprint, setting: Setting, available: int, most: int = 0) -> Iterator[str]:
    """Options with which requests of more than `most` tokens fit: the least change first, and each for longer ones."""
    kinds: list[tuple[str, KvFormat, Quantization | None]] = [("", setting.kv_format, setting.quantize)]
    kinds += [("--kv-cache-dtype int8", "int8", setting.quantize)] if setting.kv_format != "int8" else []
    if setting.quantize is None:
        kinds += [(f"--quantize {to}", setting.kv_format, to) for to in footprint.quantizations()]
    for option, kv_format, quantize in kinds:
        longest = min(footprint.largest_context(available, kv_format, quantize), setting.context)
        if longest <= most:
            continue
        most = longest
        yield " ".join(part for part in (option, "" if longest == setting.context else f"--context {longest}") if part)
