"""Captures training data from the engine: tokens, hidden states, the keys and values that a drafter attends to, and the
target's distributions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from outrider import LLM, SamplingParams
from outrider.arrays import Floats
from outrider.backends import cpu
from outrider.checkpoints.config import ModelConfig, last_kv_layers, own_kv_layers
from outrider.engine.drafting import DraftPlanner
from outrider.engine.request import Request
from outrider.train.dataset import DatasetWriter, Shapes

TOP = 20
"""Likeliest tokens stored per distribution."""


@dataclass(frozen=True)
class Job:
    """One text to generate."""

    prompt: list[int]
    params: SamplingParams


def capture_shapes(config: ModelConfig) -> Shapes:
    """The row widths of a target's training data."""
    width = {}
    for kind, index in last_kv_layers(config).items():
        layer = config.layers[index]
        width[kind] = 2 * layer.kv_heads * layer.head_dim
    return Shapes(config.hidden_size, width["sliding"], width["full"], TOP)


class _Recorder(DraftPlanner):
    """Takes the planner's place: plans no drafts, and stores every finished request."""

    def __init__(self, llm: LLM, writer: DatasetWriter) -> None:
        super().__init__(llm.engine.planner.costs.at(0), lookup=False)
        self.wants_hidden = True
        self._writer, self._states = writer, dict[int, list[Floats]]()
        kv_numbers = {layer: number for number, layer in enumerate(own_kv_layers(llm.config))}
        self._kv_layers = {kind: kv_numbers[layer] for kind, layer in last_kv_layers(llm.config).items()}
        self.captured = 0

    def open(self, request: Request) -> None:
        super().open(request)
        self._states[request.number] = []

    def observe(self, request: Request, hidden: Floats) -> None:
        self._states[request.number].append(hidden)

    def close(self, request: Request) -> None:
        super().close(request)
        states = self._states.pop(request.number)
        if request.finish_reason is not None and len(request.answer) > 2:
            self._writer.append(self._rows(request, states), request.prompt_length, request.params.greedy)
            self.captured += len(request.answer)

    def _rows(self, request: Request, states: list[Floats]) -> dict[str, Any]:
        tokens, first = request.tokens, request.prompt_length - 1
        length = len(tokens)
        shapes = self._writer.shapes.fields()
        rows: dict[str, Any] = {name: np.zeros((length, *shape), dtype) for name, (dtype, shape) in shapes.items()}
        rows["tokens"][:] = tokens
        rows["hidden"][first : first + len(states)] = states
        for kind, layer in self._kv_layers.items():
            rows[kind][: length - 1] = _keys_and_values(request.sequence.cache, layer, length - 1)
        for position, of in enumerate(request.output().logprobs or (), start=first + 1):
            rows["top_tokens"][position] = [token for token, _ in of.top]
            rows["top_logprobs"][position] = [logprob for _, logprob in of.top]
        return rows


def _keys_and_values(cache: cpu.KvCache, layer: int, length: int) -> Floats:
    """(length, 2 * kv_heads * head_dim) float32."""
    keys, values = cache.read(layer, 0, length)
    return np.concatenate([keys.reshape(length, -1), values.reshape(length, -1)], axis=1)


def capture(
    llm: LLM,
    jobs: Iterable[Job],
    folder: Path,
    *,
    provenance: dict[str, Any],
    together: int = 16,
    advance: Callable[[int], bool] = lambda _: True,
) -> int:
    """Generate every job's text, `together` at a time, and append it to the data in `folder`.

    Args:
        provenance: what the data comes from; see `DatasetWriter`.
        advance: receives the number of tokens since the last call; returns False to end the run.

    Returns:
        the number of captured tokens of this run, prompts not counted.
    """
    writer = DatasetWriter(folder, capture_shapes(llm.config), provenance)
    own, recorder = llm.engine.planner, _Recorder(llm, writer)
    waiting, running, reported = iter(jobs), list[Request](), 0
    llm.engine.planner = recorder
    try:
        while True:
            running = [request for request in running if request.finish_reason is None]
            while len(running) < together and (job := next(waiting, None)) is not None:
                params = replace(job.params, draft="off", logprobs=TOP)
                running.append(llm.engine.add(list(job.prompt), params))
            if not running:
                break
            llm.engine.step()
            if recorder.captured > reported:
                more, reported = recorder.captured - reported, recorder.captured
                if not advance(more):
                    break
    finally:
        for request in running:
            llm.engine.cancel(request)
        llm.engine.planner = own
        writer.close()
    return recorder.captured
