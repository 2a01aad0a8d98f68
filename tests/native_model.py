"""A model driven row by row, without tokenizer or engine: what the tests of kernels, models and caches share."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from outrider.assembly import cpu_target
from outrider.backends import cpu
from outrider.checkpoints import open_checkpoint
from outrider.checkpoints.checkpoint import Tensor
from outrider.models.gemma import kv_layers
from outrider.quant import WeightStore

MAX_POSITIONS = 4096


def dequantized_tensors(tensors):
    """The same tensors as float32."""
    out = {}
    for name, tensor in tensors.items():
        rows, columns = int(np.prod(tensor.shape[:-1])), tensor.shape[-1]
        scales = (tensor.scales.scale, tensor.scales.zero) if tensor.scales else ()
        values = cpu.dequantize(tensor.format, rows, columns, tensor.data, *scales)
        values = values.reshape(tensor.shape) * np.float32(tensor.factor)
        out[name] = Tensor(name, "F32", tensor.shape, values.reshape(-1).view(np.uint8))
    return out


class NativeModel:
    """Loads a checkpoint and runs passes on it; `threads` and `max_rows` as a test wants them."""

    def __init__(
        self,
        path: Path | str,
        *,
        threads: int = 2,
        max_rows: int = 64,
        kv_format: cpu.KvFormat = "float16",
        dequantized: bool = False,
    ) -> None:
        checkpoint = open_checkpoint(path)
        tensors = dequantized_tensors(checkpoint.tensors) if dequantized else checkpoint.tensors
        self.config = checkpoint.config
        self.max_rows = max_rows
        pool = cpu.ThreadPool(threads)
        store = WeightStore(tensors, pool)
        self.forward = cpu_target(self.config, store, pool, max_rows=max_rows, kv_format=kv_format)
        self.vocabulary = self.forward.program.vocabulary
        self.pages = cpu.KvPages(cpu.kv_shapes(kv_layers(self.config)), kv_format)

    def cache(self, max_positions: int = MAX_POSITIONS) -> cpu.KvCache:
        return cpu.KvCache(self.pages, max_positions, self.max_rows)

    def run(self, cache, tokens, *, parents=None, outputs=None, commit=None):
        """One pass over one sequence: (logits, hidden) of the outputs (default: all rows)."""
        return self.run_many([(cache, tokens, parents, outputs)], commits=[commit])[0]

    def run_many(self, sequences, *, commits=None):
        """One pass over several sequences [(cache, tokens, parents, outputs)]: per sequence (logits, hidden)."""
        token, sequence, parent, wanted, counts = [], [], [], [], []
        for number, (_, tokens, parents, outputs) in enumerate(sequences):
            offset = len(token)
            parents = list(range(-1, len(tokens) - 1)) if parents is None else parents
            outputs = range(len(tokens)) if outputs is None else outputs
            token += tokens
            sequence += [number] * len(tokens)
            parent += [p if p < 0 else p + offset for p in parents]
            wanted += [row + offset for row in outputs]
            counts.append(len(list(outputs)))
        logits = np.empty((len(wanted), self.vocabulary), np.float32)
        caches = [s[0] for s in sequences]
        arrays = [np.array(x, np.int32) for x in (token, sequence, parent, wanted)]
        choices, best = self.forward.program.run(*arrays, caches, logits)
        hidden = self.forward.program.read(self.forward.hidden, len(wanted))
        plain = np.empty_like(best)
        for row in range(len(wanted)):  # the choice without logits is the argmax of the logits
            plain[row] = logits[row].max()
            assert logits[row, choices[row]] == plain[row]
        for cache, commit in zip(caches, commits or [], strict=False):
            if commit is not None:
                cache.commit(np.array(commit, np.int32))
        ends = np.cumsum(counts)[:-1]
        return list(zip(np.split(logits, ends), np.split(hidden, ends), strict=True))

    def whole(self, tokens, *, chunk: int | None = None):
        """(logits, hidden) of every position of a text, in passes of `chunk` rows."""
        chunk, cache, parts = chunk or self.max_rows, self.cache(), []
        for begin in range(0, len(tokens), chunk):
            piece = tokens[begin : begin + chunk]
            parts.append(self.run(cache, piece, commit=range(len(piece))))
        return tuple(np.concatenate(column) for column in zip(*parts, strict=True))
