"""The target: one call for prefill, plain decoding and verification alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from outrider.arrays import Floats, Ints
from outrider.backends import cpu
from outrider.engine.gate import Gate
from outrider.models.gemma import Forward

NO_ADAPTER = -1


@dataclass
class Rows:
    """The rows of one sequence in a pass: `parents` are row numbers within it, -1 for the last committed token;
    `outputs` are the rows whose choice is wanted, ascending. `embeddings` are runs of rows that carry an embedding: the
    first row, and (rows, hidden_size) float32. `lora` names the adapter."""

    cache: cpu.KvCache
    tokens: list[int]
    parents: list[int]
    outputs: list[int]
    embeddings: list[tuple[int, Floats]] = field(default_factory=list)
    lora: str | None = None


@dataclass
class PassResult:
    """One pass. By sequence: `choices`, the most likely token of each output, int32; `logits`, (outputs, vocabulary)
    float32 after softcap, or None if not requested. Suppressed tokens are no choices, and have logits of -infinity."""

    choices: list[Ints]
    logits: list[Floats | None]
    seconds: float


class Target:
    """A recorded model, ready to run.

    Args:
        adapters: the names of its adapters, in the order of their numbers.
    """

    def __init__(self, forward: Forward, adapters: Sequence[str] = ()) -> None:
        self.forward = forward
        self._adapters: dict[str | None, int] = {None: NO_ADAPTER, **{name: i for i, name in enumerate(adapters)}}
        self.config = forward.config
        self.max_rows = forward.program.max_rows
        self.vocabulary = forward.program.vocabulary
        self.gate = Gate()
        """Held during a pass, and while its buffers are read."""
        self._logits = np.empty((0, self.vocabulary), np.float32)

    def run(self, sequences: Sequence[Rows], *, logits: bool = False) -> PassResult:
        """Computes all rows in one pass and stages them in their caches; the caller commits.

        The next pass reuses the memory of the logits.

        Raises:
            ValueError: the rows do not fit the model or the cache (a bug of the caller, not of the input).
        """
        offsets = np.cumsum([0, *(len(s.tokens) for s in sequences)])
        token = np.concatenate([np.asarray(s.tokens, np.int32) for s in sequences])
        sequence = np.repeat(np.arange(len(sequences), dtype=np.int32), [len(s.tokens) for s in sequences])
        parent, outputs = [], []
        for s, offset in zip(sequences, offsets, strict=False):
            own = np.asarray(s.parents, np.int32)
            parent.append(np.where(own < 0, own, own + np.int32(offset)).astype(np.int32))
            outputs.append(np.asarray(s.outputs, np.int32) + np.int32(offset))
        wanted = np.concatenate(outputs)
        buffer = self._logits_for(len(wanted)) if logits and len(wanted) else None
        rows = token, sequence, np.concatenate(parent), wanted, [s.cache for s in sequences]
        others = _embeddings(sequences, offsets), self._adapter(sequences)

        def run(into: Floats | None) -> Ints:
            best, _ = self.forward.program.run(*rows, into, *others)
            return best

        with self.gate:
            started = time.perf_counter()
            best = self._choices(run, buffer, len(wanted))
            seconds = time.perf_counter() - started
        ends = np.cumsum([len(s.outputs) for s in sequences])[:-1]
        parts: list[Floats | None] = [None] * len(sequences) if buffer is None else list(np.split(buffer, ends))
        return PassResult(np.split(best, ends), parts, seconds)

    def _choices(self, run: Callable[[Floats | None], Ints], logits: Floats | None, outputs: int) -> Ints:
        """The most likely token of each output that is not suppressed, ties to the lower id.

        A suppressed token is so rarely the likeliest that repeating the pass then, for its logits, costs less than
        logits in every pass.

        Args:
            run: runs the pass, with its logits or without.
            logits: (outputs, vocabulary) float32, to fill; None if they are not wanted.
        """
        best, suppressed = run(logits), list(self.config.suppressed.always)
        wrong = [at for at, token in enumerate(best.tolist()) if token in suppressed]
        if wrong and logits is None:
            logits = self._logits_for(outputs)
            best = run(logits)
        if logits is not None:
            logits[:, suppressed] = -np.inf
            for at in wrong:
                best[at] = logits[at].argmax()
        return best

    def hidden(self, outputs: int) -> Floats:
        """The final hidden states of the last pass's first `outputs` output rows, (outputs, hidden_size) float32."""
        states: Floats = self.forward.program.read(self.forward.hidden, outputs)
        return states

    def taps(self, rows: int) -> dict[int, Floats]:
        """Tapped layer -> hidden states after it of the last pass's first `rows` rows, (rows, hidden_size) float32."""
        return {layer: self.forward.program.read(buffer, rows) for layer, buffer in self.forward.taps.items()}

    def _adapter(self, sequences: Sequence[Rows]) -> Ints | None:
        """The number of each row's adapter as an executor takes it; None if no row has one."""
        if all(s.lora is None for s in sequences):
            return None
        numbers = np.array([self._adapters[s.lora] for s in sequences], np.int32)
        return np.repeat(numbers, [len(s.tokens) for s in sequences])

    def _logits_for(self, rows: int) -> Floats:
        if len(self._logits) < rows:
            self._logits = np.empty((rows, self.vocabulary), np.float32)
        return self._logits[:rows]


def chain(cache: cpu.KvCache, tokens: Sequence[int], outputs: list[int], lora: str | None = None) -> Rows:
    """Rows that follow each other."""
    return Rows(cache, list(tokens), list(range(-1, len(tokens) - 1)), outputs, lora=lora)


def _embeddings(sequences: Sequence[Rows], offsets: Ints) -> tuple[Ints, Floats] | None:
    """The embeddings of a pass as an executor takes them, see `Executor.run`; None if no row carries one."""
    runs = [
        (offset + first, given) for s, offset in zip(sequences, offsets, strict=False) for first, given in s.embeddings
    ]
    if not runs:
        return None
    index, count = np.full(offsets[-1], -1, np.int32), 0
    for first, given in runs:
        index[first : first + len(given)] = np.arange(count, count + len(given))
        count += len(given)
    return index, np.concatenate([given for _, given in runs])
