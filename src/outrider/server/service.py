"""A loaded model as routes use it."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, replace

from outrider import LLM, SamplingParams
from outrider.cache import CachePool
from outrider.engine.engine import Engine
from outrider.engine.scoring import ScoredToken, score_tokens
from outrider.errors import UsageError
from outrider.server.errors import ApiError
from outrider.server.generation import Generation, Run
from outrider.server.host import Host
from outrider.server.scheduler import Scheduler


@dataclass(frozen=True)
class _Scorable:
    """The model for `score_tokens`; the scheduler's thread runs its engine."""

    driver: Scheduler
    engine: Engine
    caches: CachePool


class Service:
    """One loaded model.

    Args:
        name: the model's, in the API.

    `sampling` are the fields of `SamplingParams` that the checkpoint recommends, for requests that leave them out.
    """

    def __init__(self, llm: LLM, scheduler: Scheduler, host: Host, *, name: str) -> None:
        self._llm = llm
        self.parts, self.tokenizer, self.context = llm.parts, llm.tokenizer, llm.context
        self.scheduler, self.sampling = scheduler, llm.parts.sampling
        self.host, self.name = host, name

    def close(self) -> None:
        """Ends the scheduler's thread, once its jobs have ended, and releases the model."""
        self.scheduler.stop()
        self._llm.close()

    async def begin(self, generation: Generation) -> Run:
        """Prepares a generation and queues its jobs.

        Raises:
            ApiError: a grammar cannot be used, the queue is full, or the server is shutting down.
            OutriderError: a prompt and its answer could never fit into memory.
        """
        return Run(self.scheduler, generation, await self.prepare(generation))

    async def prepare(self, generation: Generation) -> list[list[ScoredToken]]:
        """Compiles a generation's grammars, so that the engine finds them compiled, and scores its prompts if it asks
        for that. Scoring ends before its next pass if this is cancelled. Raises as `begin`.
        """
        for ids, params in generation.prompts:
            self.parts.caches.check(min(len(ids) + params.max_tokens, self.context))
        for grammar in generation.grammars:
            try:
                await self.host.compile(self.parts.prompts.check, SamplingParams(grammar=grammar))
            except UsageError as error:
                raise ApiError(400, str(error), param=generation.grammar_field) from error
        scored: list[list[ScoredToken]] = []
        if generation.prompt_logprobs is not None:
            self.scheduler.check_room()
            model, ended = _Scorable(self.scheduler, self.parts.engine, self.parts.caches), threading.Event()
            try:
                for ids, params in generation.prompts:
                    count = generation.prompt_logprobs
                    scored.append(await asyncio.to_thread(score_tokens, model, ids, count, params, ended.is_set))
            finally:
                ended.set()
        return scored

    def checked(self, params: SamplingParams) -> SamplingParams:
        """Parameters that fit the model; their grammar is not compiled yet. Raises UsageError."""
        return replace(self.parts.prompts.fit(replace(params, grammar=None)), grammar=params.grammar)

    def adapter(self, model: str) -> str | None:
        """`SamplingParams.lora` of a request that names this model."""
        return model if model in self.parts.adapters else None
