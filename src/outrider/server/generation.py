"""A generation request of any API: from checked prompts to the pieces of its answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from functools import partial

from outrider import Grammar, SamplingParams
from outrider.engine.outputs import Piece, RequestOutput
from outrider.errors import OutriderError
from outrider.server.scheduler import Job, Scheduler


@dataclass(frozen=True)
class Generation:
    """What to generate: `params.n` answers to each prompt.

    prompts: token ids of each.
    grammars: to be compiled before work starts, in this order. grammar_field: the request's field that they come from.
    """

    prompts: list[list[int]]
    params: SamplingParams
    grammars: tuple[Grammar, ...] = ()
    grammar_field: str | None = None


class Run:
    """A generation at work: one job of the scheduler for each answer, prompt by prompt.

    Raises:
        ApiError: the queue is full, or the server is shutting down.
    """

    def __init__(self, scheduler: Scheduler, generation: Generation) -> None:
        self._scheduler = scheduler
        self._arrived: asyncio.Queue[tuple[int, Piece | OutriderError]] = asyncio.Queue()
        self.jobs: list[Job] = []
        loop = asyncio.get_running_loop()

        def deliver(index: int, piece: Piece | OutriderError) -> None:
            loop.call_soon_threadsafe(self._arrived.put_nowait, (index, piece))

        try:
            for prompt in generation.prompts:
                for params in generation.params.each():
                    self.jobs.append(scheduler.submit(prompt, params, partial(deliver, len(self.jobs))))
        except OutriderError:
            self.cancel()
            raise

    async def pieces(self) -> AsyncGenerator[tuple[int, Piece], None]:
        """The pieces of all answers as they arrive, each with its answer's index. Ending early cancels the jobs.

        Raises:
            OutriderError: one of them failed.
        """
        left = len(self.jobs)
        try:
            while left:
                index, piece = await self._arrived.get()
                if isinstance(piece, OutriderError):
                    raise piece
                yield index, piece
                left -= piece.finish_reason is not None
        finally:
            self.cancel()

    async def outputs(self) -> list[RequestOutput]:
        """The whole answers. Raises as `pieces`."""
        async for _ in self.pieces():
            pass
        return self.finished

    @property
    def finished(self) -> list[RequestOutput]:
        """The answers that are finished."""
        return [job.output for job in self.jobs if job.output is not None]

    def abort(self, error: OutriderError) -> None:
        """Cancels the jobs, and makes `pieces` raise the error."""
        self.cancel()
        self._arrived.put_nowait((0, error))

    def cancel(self) -> None:
        """Ends the jobs that are not finished; their slots are free before the next pass."""
        for job in self.jobs:
            self._scheduler.cancel(job)
