"""What all routes share: the model, the scheduler, the limits, and threads for what would block the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from outrider import LLM, SamplingParams
from outrider.cache import CachePool
from outrider.engine.engine import Engine
from outrider.engine.scoring import ScoredToken, score_tokens
from outrider.errors import UsageError
from outrider.server.errors import ApiError, api_error
from outrider.server.file_handles import limit_accept_errors
from outrider.server.generation import Generation, Run
from outrider.server.keys import ApiKeys
from outrider.server.limits import Limits
from outrider.server.metrics import Metrics
from outrider.server.scheduler import Scheduler

_ENCODERS, _COMPILERS = 2, 4
"""Bodies parsed and encoded, and grammars compiled, at once: either may take some hundred times its size in memory,
which the system's allocator keeps for each thread."""

_OTHERS = 4
"""Threads of `asyncio.to_thread`, for scoring and the response store: by default there may be 32."""

Result = TypeVar("Result")


@dataclass(frozen=True)
class _Scorable:
    """The model for `score_tokens`; the scheduler's thread runs its engine."""

    driver: Scheduler
    engine: Engine
    caches: CachePool


class Service:
    """One served model.

    Args:
        name: the model's, in the API. aliases: other names for it. Its adapters have their own.
        keys: API keys, of which clients send one as bearer token.
        limits: the scheduler's.
        ignore_media: put "[image]" and the like in the place of content that is no text.

    `sampling` are the fields of `SamplingParams` that the checkpoint recommends, for requests that leave them out.
    """

    def __init__(
        self,
        llm: LLM,
        scheduler: Scheduler,
        metrics: Metrics,
        *,
        name: str,
        aliases: Sequence[str] = (),
        keys: ApiKeys | None = None,
        limits: Limits | None = None,
        ignore_media: bool = False,
    ) -> None:
        self.parts, self.tokenizer, self.context = llm.parts, llm.tokenizer, llm.context
        self.scheduler, self.metrics, self.sampling = scheduler, metrics, llm.parts.sampling
        self.ignore_media = ignore_media
        self.name, self.names, self.adapters = name, (name, *aliases), tuple(llm.parts.adapters)
        self.keys, self.limits = keys or ApiKeys(), limits or Limits()
        self._encoders = ThreadPoolExecutor(_ENCODERS, "outrider-encode")
        self._compilers = ThreadPoolExecutor(_COMPILERS, "outrider-compile")

    def start(self) -> None:
        """Starts the scheduler; to be called from the event loop that serves."""
        loop = asyncio.get_running_loop()
        limit_accept_errors(loop)
        loop.set_default_executor(ThreadPoolExecutor(_OTHERS, "outrider-other"))
        self.scheduler.start()

    async def stop(self) -> None:
        """Drains the scheduler."""
        await asyncio.to_thread(self.scheduler.stop)
        for pool in (self._encoders, self._compilers):
            pool.shutdown(wait=False, cancel_futures=True)

    async def in_thread(self, function: Callable[..., Result], *arguments: object) -> Result:
        """Runs a function in a worker thread, for what takes time in proportion to the request."""
        return await asyncio.get_running_loop().run_in_executor(self._encoders, partial(function, *arguments))

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
            params, loop = SamplingParams(grammar=grammar), asyncio.get_running_loop()
            try:
                await loop.run_in_executor(self._compilers, self.parts.prompts.check, params)
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

    def check_model(self, name: str, param: str | None = "model") -> None:
        """Raises ApiError if a request names another model or adapter; no name is the served model."""
        names = (*self.names, *self.adapters)
        if name and name not in names:
            message = f"there is no model {name}: this is {' or '.join(names)}"
            raise ApiError(404, message, kind="not_found_error", param=param, code="model_not_found")

    def adapter(self, model: str) -> str | None:
        """`SamplingParams.lora` of a request that names this model."""
        return model if model in self.adapters else None

    def error(self, error: Exception) -> ApiError:
        """What a client gets for an error; counts those that a limit caused."""
        found = api_error(error)
        if found.limit is not None:
            self.metrics.limit_exceeded(found.limit)
        return found
