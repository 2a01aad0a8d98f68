"""Runs requests for callers in Python: many to their end, or one piece by piece."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from dataclasses import replace

from outrider.chat.turn import Turn
from outrider.engine.driver import Answer, Driver
from outrider.engine.outputs import Piece, RequestOutput
from outrider.errors import UsageError
from outrider.sampling.params import SamplingParams


def answer_all(driver: Driver, prompts: Sequence[list[int]], params: Sequence[SamplingParams]) -> list[RequestOutput]:
    """Answers every prompt with its parameters, all of them sharing each pass.

    Raises:
        OutriderError: a request failed, or its grammar exceeded the work limit of a token.
    """
    requests = [(prompt, each) for prompt, one in zip(prompts, params, strict=True) for each in one.each()]
    answers = driver.submit(requests)
    try:
        outputs = iter([answer.output() for answer in answers])
    except BaseException:  # an interrupt too
        driver.cancel(answers)
        raise
    by_prompt = [[next(outputs) for _ in range(one.n)] for one in params]
    return [replace(first, others=tuple(others)) for first, *others in by_prompt]


def answer_turns(driver: Driver, turns: Sequence[Turn], params: Sequence[SamplingParams]) -> list[RequestOutput]:
    """As `answer_all` for turns of conversations: thoughts and calls are read from the text."""
    each = [turn.params(one) for turn, one in zip(turns, params, strict=True)]
    outputs = answer_all(driver, [turn.ids for turn in turns], each)
    return [_read(output, turn) for output, turn in zip(outputs, turns, strict=True)]


def _read(output: RequestOutput, turn: Turn) -> RequestOutput:
    reader = turn.markers.reader()
    parts = reader.push(output.text) + reader.flush()
    others = tuple(_read(other, turn) for other in output.others)
    return replace(output, text=parts.content, reasoning=parts.reasoning, tool_calls=tuple(parts.calls), others=others)


def stream(owner: object, driver: Driver, prompt: list[int], params: SamplingParams) -> Generator[Piece, None, None]:
    """One answer, pass by pass. Closing the generator, or dropping it, cancels the request.

    Args:
        owner: kept for as long as the generator is.
    """
    if params.n != 1:
        raise UsageError(f"a stream has one answer: leave n at 1, not {params.n}, or use generate")
    pieces = _pieces(owner, driver, driver.submit([(prompt, params)], streams=True)[0])
    next(pieces)  # a generator that has not begun would not cancel its request either
    return pieces


def _pieces(_owner: object, driver: Driver, answer: Answer) -> Generator[Piece, None, None]:
    try:
        yield Piece("", (), (), ())  # consumed by `stream`
        yield from answer.pieces()
    finally:
        driver.cancel([answer])


async def astream(begin: Callable[[], Generator[Piece, None, None]]) -> AsyncGenerator[Piece, None]:
    """The pieces of a stream. Worker threads wait for them, so the event loop does not block.

    Closing it, or cancelling the task that reads it, cancels the request at the end of the running pass.

    Args:
        begin: makes the stream; called in a worker thread too.
    """
    pieces = await asyncio.to_thread(begin)
    working: asyncio.Future[Piece | None] | None = None
    try:
        while True:
            working = asyncio.ensure_future(asyncio.to_thread(next, pieces, None))
            piece = await asyncio.shield(working)
            if piece is None:
                return
            yield piece
    finally:
        if working is not None and not working.done():
            await asyncio.wait([working])  # a generator cannot be closed while a thread is in it
        pieces.close()
