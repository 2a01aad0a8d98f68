"""`POST /v1/completions`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.responses import Response

from outrider.engine.outputs import FinishReason, Piece, RequestOutput
from outrider.sampling.logprobs import TokenLogprobs
from outrider.sampling.params import MAX_LOGPROBS
from outrider.server.generation import Generation
from outrider.server.openai.answers import Answer, Chunk, respond
from outrider.server.openai.logprobs import CompletionLogprobs, CompletionLogprobsWriter
from outrider.server.openai.shapes import ERRORS, STREAM
from outrider.server.route import ApiRoute, Call
from outrider.server.sampling import UNSUPPORTED, SamplingFields

router = APIRouter(prefix="/v1", route_class=ApiRoute, responses=ERRORS)

_TOOLS = "tools belong to a conversation: use /v1/chat/completions"


class CompletionRequest(SamplingFields):
    """A text, or token ids, to continue."""

    unsupported: ClassVar[dict[str, str]] = UNSUPPORTED | {"tools": _TOOLS, "tool_choice": _TOOLS}

    # Of a list that is wrong throughout, one error is enough.
    prompt: (
        str
        | Annotated[list[int], Field(min_length=1, fail_fast=True)]
        | Annotated[list[str], Field(min_length=1, max_length=1, fail_fast=True)]
    )
    logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    echo: Literal[False] = False
    best_of: Literal[1] | None = None

    def generation(self, call: Call) -> Generation:
        """What to generate; runs in a worker thread."""
        service = call.service
        prompt = service.parts.prompts.encode(self._only_prompt)
        field, grammar = self.constraint()
        room, salt = service.context - len(prompt), call.cache_salt(self.cache_salt)
        params = service.checked(self.params(room, salt, self.logprobs, grammar))
        return Generation([prompt], params, () if grammar is None else (grammar,), field)

    @property
    def _only_prompt(self) -> str | list[int]:
        if isinstance(self.prompt, str):
            return self.prompt
        texts = [part for part in self.prompt if isinstance(part, str)]
        return texts[0] if texts else [part for part in self.prompt if isinstance(part, int)]


class CompletionChoice(BaseModel):
    """A continuation, or a part of it."""

    index: int
    text: str
    finish_reason: Literal["stop", "length"] | None
    logprobs: CompletionLogprobs | None


class Completion(Answer):
    """Continuations."""

    prefix = "cmpl"
    object: Literal["text_completion"] = "text_completion"
    choices: list[CompletionChoice]


class CompletionChunk(Chunk):
    """A part of one continuation, or the usage."""

    object: Literal["text_completion"] = "text_completion"
    choices: list[CompletionChoice]


class CompletionWriter:
    """Writes one continuation."""

    def __init__(self, call: Call, asked: CompletionRequest) -> None:
        self._logprobs = None if asked.logprobs is None else CompletionLogprobsWriter(call.service.tokenizer)

    def whole(self, index: int, out: RequestOutput) -> CompletionChoice:
        """See `ChoiceWriter`."""
        return self._choice(index, out.text, out.finish_reason, out.logprobs or ())

    def part(self, index: int, piece: Piece) -> CompletionChoice:
        """See `ChoiceWriter`."""
        return self._choice(index, piece.text, piece.finish_reason, piece.logprobs)

    def _choice(
        self, index: int, text: str, reason: FinishReason | None, tokens: Sequence[TokenLogprobs]
    ) -> CompletionChoice:
        logprobs = self._logprobs.next(tokens) if self._logprobs else None
        return CompletionChoice(index=index, text=text, finish_reason=reason, logprobs=logprobs)


@router.post("/completions", response_model=Completion, responses={200: STREAM})
async def completions(call: Call, asked: CompletionRequest) -> Response:
    """Continue a text."""
    asked.check_model(call.service)
    run = await call.service.begin(await call.service.in_thread(asked.generation, call))
    writers = [CompletionWriter(call, asked) for _ in run.jobs]
    return await respond(call, asked, run, writers, Completion, CompletionChunk)
