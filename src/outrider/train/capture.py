"""Runs prompts through the engine and keeps what a drafter will have to work with: tokens, hidden states, the keys and
values that it reads, and the target's own distributions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from outrider import LLM, SamplingParams
from outrider.arrays import Floats
from outrider.backends import cpu
from outrider.checkpoints.config import ModelConfig, last_kv_layers
from outrider.drafters.protocol import CommittedRows
from outrider.engine.request import Request
from outrider.models.gemma import kv_numbers
from outrider.train.dataset import DatasetWriter, Shapes

TOP = 20
"""Likeliest tokens kept of every distribution."""


@dataclass(frozen=True)
class Job:
    """One text for the target to generate."""

    prompt: list[int]
    params: SamplingParams


def capture_shapes(config: ModelConfig) -> Shapes:
    """The row widths of a target's data."""
    width = {}
    for kind, index in last_kv_layers(config).items():
        layer = config.layers[index]
        width[kind] = 2 * layer.kv_heads * layer.head_dim
    return Shapes(config.hidden_size, width["sliding"], width["full"], TOP)


class _Recorder:
    """Keeps hidden states, keys and values of running requests, and writes down every request that ends."""

    def __init__(self, llm: LLM, writer: DatasetWriter) -> None:
        self._writer, self._states = writer, dict[int, list[Floats]]()
        self._kv: dict[int, dict[str, list[Floats]]] = {}
        numbers = kv_numbers(llm.config)
        self._kv_layers = {kind: numbers[layer] for kind, layer in last_kv_layers(llm.config).items()}
        self.captured = 0

    def on_commit(self, request: Request, rows: CommittedRows) -> None:
        """See `Engine.observing`."""
        states = self._states.setdefault(request.number, [])
        states += list(rows.hidden)
        kv = self._kv.setdefault(request.number, {kind: [] for kind in self._kv_layers})
        for kind, layer in self._kv_layers.items():  # now: a sliding layer drops what its window has left
            end = rows.first + len(rows.tokens)
            kv[kind].append(_keys_and_values(request.sequence.cache, layer, rows.first, end))
        if request.ended:
            del self._states[request.number], self._kv[request.number]
            if request.finish_reason is not None and len(request.answer) > 2:
                self._writer.append(self._rows(request, states, kv), request.prompt_length, request.params.greedy)
                self.captured += len(request.answer)

    def _rows(self, request: Request, states: list[Floats], kv: dict[str, list[Floats]]) -> dict[str, Any]:
        tokens, first = request.tokens, request.prompt_length - 1
        length = len(tokens)
        shapes = self._writer.shapes.fields()
        rows: dict[str, Any] = {name: np.zeros((length, *shape), dtype) for name, (dtype, shape) in shapes.items()}
        rows["tokens"][:] = tokens
        rows["hidden"][first : first + len(states)] = states
        for kind, parts in kv.items():
            rows[kind][: length - 1] = np.concatenate(parts)
        for position, of in enumerate(request.output().logprobs or (), start=first + 1):
            rows["top_tokens"][position] = [token for token, _ in of.top]
            rows["top_logprobs"][position] = [logprob for _, logprob in of.top]
        return rows


def _keys_and_values(cache: cpu.KvCache, layer: int, begin: int, end: int) -> Floats:
    """(end - begin, 2 * kv_heads * head_dim) float32."""
    keys, values = cache.read(layer, begin, end)
    return np.concatenate([keys.reshape(end - begin, -1), values.reshape(end - begin, -1)], axis=1)


def capture(
    llm: LLM,
    jobs: Iterable[Job],
    folder: Path,
    *,
    provenance: dict[str, Any],
    batch: int = 16,
    advance: Callable[[int], bool] = lambda _: True,
) -> int:
    """Generate every job's text, `batch` at a time, and append it to the data in `folder`.

    Args:
        provenance: what the data comes from; see `DatasetWriter`.
        advance: receives the number of tokens since the last call; returns False to end the run.

    Returns:
        the number of captured tokens of this run, prompts not counted.
    """
    writer = DatasetWriter(folder, capture_shapes(llm.config), provenance)
    recorder = _Recorder(llm, writer)
    waiting, running, reported = iter(jobs), list[Request](), 0
    try:
        with llm.parts.engine.observing(recorder.on_commit):
            while True:
                running = [request for request in running if request.finish_reason is None]
                while len(running) < batch and (job := next(waiting, None)) is not None:
                    params = replace(job.params, draft="off", logprobs=TOP, cache_prompt=False)
                    running.append(llm.parts.engine.add(list(job.prompt), params))
                if not running:
                    break
                llm.parts.engine.step()
                if recorder.captured > reported:
                    more, reported = recorder.captured - reported, recorder.captured
                    if not advance(more):
                        break
    finally:
        for request in running:
            llm.parts.engine.cancel(request)
        writer.close()
    return recorder.captured
