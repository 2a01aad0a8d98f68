"""A generation request of any API: from checked prompts to the pieces of its answers."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from outrider import Grammar, SamplingParams
from outrider.engine.outputs import Piece, RequestOutput, RequestStats
from outrider.engine.scoring import ScoredToken
from outrider.errors import OutriderError
from outrider.server.scheduler import Job, Scheduler


@dataclass(frozen=True)
class Generation:
    """What to generate: `n` answers to each prompt, whose seeds are those of the prompt's parameters and the next ones.

    prompts: token ids of each, with its parameters.
    grammars: to be compiled before work starts, in this order. grammar_field: the request's field that they come from.
    empty: no tokens are generated (`max_tokens` 0).
    prompt_logprobs: report on prompt tokens, with this many of the most likely ones in their position.
    """

    prompts: list[tuple[list[int], SamplingParams]]
    n: int = 1
    grammars: tuple[Grammar, ...] = ()
    grammar_field: str | None = None
    empty: bool = False
    prompt_logprobs: int | None = None

    def answers(self) -> list[tuple[list[int], SamplingParams]]:
        """Prompt and parameters of each answer, prompt by prompt."""
        seeds = range(self.n)
        return [(ids, replace(p, seed=(p.seed + more) % 2**64)) for ids, p in self.prompts for more in seeds]


class Run:
    """A generation at work: one job of the scheduler for each answer.

    As many as the batch holds are queued at once; the others follow as these finish, so that requests of other clients
    come in between.

    Attributes: `answers` has the prompt and the parameters of each; `scored` the report on each prompt's tokens, if the
    generation asks for it.

    Raises:
        ApiError: the queue is full, or the server is shutting down.
    """

    def __init__(self, scheduler: Scheduler, generation: Generation, scored: list[list[ScoredToken]]) -> None:
        self.generation, self.scored = generation, scored
        self._scheduler = scheduler
        self._loop = asyncio.get_running_loop()
        self._arrived: asyncio.Queue[tuple[int, Piece | OutriderError]] = asyncio.Queue()
        self.answers = generation.answers()
        self._rest = deque(enumerate(self.answers))
        self._jobs: list[Job] = []
        if generation.empty:
            return
        try:
            for _ in range(min(len(self.answers), scheduler.most_running)):
                self._submit(first=True)
        except OutriderError:
            self.cancel()
            raise

    def _submit(self, *, first: bool) -> None:
        index, (prompt, params) = self._rest.popleft()
        self._jobs.append(self._scheduler.submit(prompt, params, partial(self._deliver, index), first=first))

    def _deliver(self, index: int, piece: Piece | OutriderError) -> None:
        self._loop.call_soon_threadsafe(self._arrived.put_nowait, (index, piece))

    async def pieces(self) -> AsyncGenerator[tuple[int, Piece], None]:
        """The pieces of all answers as they arrive, each with its answer's index. Ending early cancels the jobs.

        Raises:
            OutriderError: one of them failed.
        """
        if self.generation.empty:
            for index, out in enumerate(self.outputs):
                yield index, Piece("", (), (), (), (), "length", out.stats)
            return
        left = len(self.answers)
        try:
            while left:
                index, piece = await self._arrived.get()
                if isinstance(piece, OutriderError):
                    raise piece
                if piece.finish_reason is not None:
                    left -= 1
                    if self._rest:
                        self._submit(first=False)
                yield index, piece
        finally:
            self.cancel()

    async def finish(self) -> list[RequestOutput]:
        """The whole answers. Raises as `pieces`."""
        async for _ in self.pieces():
            pass
        return self.outputs

    @property
    def outputs(self) -> list[RequestOutput]:
        """The answers, once all are finished."""
        if self.generation.empty:
            none = [(tuple(ids), RequestStats(prompt_tokens=len(ids))) for ids, _ in self.answers]
            return [RequestOutput(ids, (), "", "length", stats) for ids, stats in none]
        return [job.output for job in self._jobs if job.output is not None]

    def stats(self, index: int, stats: RequestStats) -> dict[str, Any]:
        """What is reported of a finished answer: its statistics and its seed."""
        return {**stats.as_dict(), "seed": self.answers[index][1].seed}

    def abort(self, error: OutriderError) -> None:
        """Cancels the jobs, and makes `pieces` raise the error."""
        self.cancel()
        self._arrived.put_nowait((0, error))

    def cancel(self) -> None:
        """Ends the jobs that are not finished; their slots are free before the next pass."""
        self._rest.clear()
        for job in self._jobs:
            self._scheduler.cancel(job)
