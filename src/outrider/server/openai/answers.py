"""What the completions and the chat route share: a response, or its chunks, from a run."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any, ClassVar, Protocol

from pydantic import BaseModel, Field
from starlette.responses import Response

from outrider.engine.outputs import Piece, RequestOutput
from outrider.server.draft_report import DraftReport, DraftReporter
from outrider.server.event_stream import EventStream, event
from outrider.server.generation import Run
from outrider.server.openai.shapes import Usage, omitted
from outrider.server.route import Call, json_response
from outrider.server.sampling import SamplingFields, StreamOptions


class Answer(BaseModel):
    """A response. `outrider`: the statistics of each choice."""

    prefix: ClassVar[str]
    id: str
    created: int = Field(default_factory=lambda: int(time.time()))
    model: str
    choices: Sequence[BaseModel]
    usage: Usage
    outrider: list[dict[str, Any]]


class Chunk(BaseModel):
    """An event of a stream: a part of one choice, or the usage."""

    id: str
    created: int = Field(default_factory=lambda: int(time.time()))
    model: str
    choices: Sequence[BaseModel]
    usage: Usage | None = omitted()
    outrider: DraftReport | None = omitted()


class ChoiceWriter(Protocol):
    """Writes one choice."""

    def whole(self, index: int, out: RequestOutput) -> BaseModel:
        """The choice of a response."""

    def part(self, index: int, piece: Piece) -> BaseModel:
        """The choice of the next chunk."""


async def respond(
    call: Call, asked: SamplingFields, run: Run, writers: Sequence[ChoiceWriter], whole: type[Answer], part: type[Chunk]
) -> Response:
    """The response to a request; `writers` has one for each answer."""
    head: dict[str, Any] = {"id": f"{whole.prefix}-{secrets.token_hex(12)}", "model": asked.model or call.service.name}
    if asked.stream:
        return EventStream(call, run, _chunks(call, run, writers, part, head, asked.stream_options))
    outputs = await call.outputs(run)

    def written() -> Response:
        choices = [writer.whole(index, out) for index, (writer, out) in enumerate(zip(writers, outputs, strict=True))]
        stats = [run.stats(index, out.stats) for index, out in enumerate(outputs)]
        return json_response(whole(**head, choices=choices, usage=Usage.of(outputs, run.generation.n), outrider=stats))

    return await call.host.in_thread(written)  # log-probabilities of many tokens take a while


async def _chunks(
    call: Call,
    run: Run,
    writers: Sequence[ChoiceWriter],
    chunk: type[Chunk],
    head: dict[str, Any],
    options: StreamOptions,
) -> AsyncGenerator[str, None]:
    head["created"] = int(time.time())
    reporters = [DraftReporter(call.service.tokenizer) for _ in writers]
    async for index, piece in run.pieces():
        choice, report = writers[index].part(index, piece), reporters[index].report(piece)
        if piece.stats is not None:
            report.stats = run.stats(index, piece.stats)
        yield event(chunk(**head, choices=[choice], outrider=report))
    if options.include_usage:
        yield event(chunk(**head, choices=[], usage=Usage.of(run.outputs, run.generation.n)))
    yield "data: [DONE]\n\n"
