"""Runs requests for callers in Python: many to their end, or one piece by piece."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Protocol

from outrider.chat.markers import Markers
from outrider.engine.engine import Engine
from outrider.engine.outputs import Piece, RequestOutput
from outrider.engine.request import Request
from outrider.errors import UsageError
from outrider.sampling.params import SamplingParams


class Running(Protocol):
    """A loaded model."""

    engine: Engine
    load_seconds: float


def answer_all(model: Running, prompts: Sequence[list[int]], params: Sequence[SamplingParams]) -> list[RequestOutput]:
    """Answers every prompt with its parameters, all of them sharing each pass.

    Raises:
        OutriderError: a request failed, or its grammar took more work than a token may.
    """
    requests: list[Request] = []
    try:
        with model.engine.together():
            for prompt, one in zip(prompts, params, strict=True):
                for answer in one.each():
                    requests.append(_add(model, prompt, answer))
        while not all(request.ended for request in requests):
            model.engine.step()
    finally:
        for request in requests:
            model.engine.cancel(request)
    for request in requests:
        _check_whole(request)
    outputs = iter([request.output() for request in requests])
    answers = [[next(outputs) for _ in range(one.n)] for one in params]
    return [replace(first, others=tuple(others)) for first, *others in answers]


def answer_turns(
    model: Running, prompts: Sequence[list[int]], params: Sequence[SamplingParams], markers: Markers
) -> list[RequestOutput]:
    """As `answer_all` for prompts that end where the model's turn begins: thoughts and calls are read from the text."""
    ends = () if markers.last_mark is None else (markers.last_mark,)
    kept = [replace(p, keep_special=p.keep_special + markers.keep_special, stop=p.stop + ends) for p in params]
    return [_read(output, markers) for output in answer_all(model, prompts, kept)]


def _read(output: RequestOutput, markers: Markers) -> RequestOutput:
    reader = markers.reader()
    parts = reader.push(output.text) + reader.flush()
    others = tuple(_read(other, markers) for other in output.others)
    return replace(output, text=parts.content, reasoning=parts.reasoning, tool_calls=tuple(parts.calls), others=others)


def stream(model: Callable[[], Running], prompt: list[int], params: SamplingParams) -> Generator[Piece, None, None]:
    """One answer, pass by pass. Closing the generator, or dropping it, cancels the request.

    Args:
        model: called for every piece, since a suspended stream must not keep a closed model's memory. Raises UsageError
            once the model is closed.
    """
    if params.n != 1:
        raise UsageError(f"a stream has one answer: leave n at 1, not {params.n}, or use generate")
    pieces = _pieces(model, _add(model(), prompt, params))
    next(pieces)  # a generator that has not begun would not cancel its request either
    return pieces


def _pieces(model: Callable[[], Running], request: Request) -> Generator[Piece, None, None]:
    try:
        yield request.take_piece()  # consumed by `stream`
        ended = False
        while not ended:
            if not request.has_news:  # another thread's pass may have brought some
                model().engine.step()
            if request.error is not None:
                raise request.error
            piece = request.take_piece()
            yield piece
            ended = piece.finish_reason is not None
        _check_whole(request)
    finally:
        if not request.ended:
            with suppress(UsageError):
                model().engine.cancel(request)


async def astream(begin: Callable[[], Generator[Piece, None, None]]) -> AsyncGenerator[Piece, None]:
    """The pieces of a stream that worker threads compute, so that the event loop stays free.

    Leaving early, or cancelling the task that reads, cancels the request; that takes until the running pass ends.

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


def _add(model: Running, prompt: list[int], params: SamplingParams) -> Request:
    request = model.engine.add(prompt, params)
    request.stats.load_seconds = model.load_seconds
    return request


def _check_whole(request: Request) -> None:
    if request.problem is not None:
        raise UsageError(f"the grammar cannot go on after {len(request.answer)} tokens: {request.problem}")
