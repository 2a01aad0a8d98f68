"""`POST /v1/completions`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

from fastapi import APIRouter
from pydantic import BaseModel, BeforeValidator, Field, WithJsonSchema
from starlette.responses import Response

from outrider.engine.outputs import FinishReason, Piece, RequestOutput
from outrider.prompts import Prompts as TokenIds
from outrider.sampling.logprobs import TokenLogprobs
from outrider.sampling.params import MAX_LOGPROBS
from outrider.server.errors import ApiError, about
from outrider.server.fields import Integer, Refused
from outrider.server.generation import Generation, Run
from outrider.server.openai.answers import Answer, Chunk, respond
from outrider.server.openai.logprobs import CompletionLogprobs, CompletionLogprobsWriter, PromptLogprob, prompt_logprobs
from outrider.server.openai.shapes import ERRORS, STREAM, omitted
from outrider.server.route import ApiRoute, Call
from outrider.server.sampling import MAX_CHOICES, REFUSED, SamplingFields
from outrider.tokenizer import Tokenizer
from outrider.tokenizer.utf8 import without_surrogates

router = APIRouter(prefix="/v1", route_class=ApiRoute, responses=ERRORS)

_CHAT = "use /v1/chat/completions"
MAX_PROMPT_LOGPROBS = 1_000_000
"""Of one response; a full context of 32,768 tokens with 20 each has two thirds of it."""
_MIDDLE = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")
"""Fill-in-the-middle tokens, as CodeGemma has them."""


def _prompts(given: Any) -> list[str | list[int]]:
    """A text, token ids, or a list of either."""
    one = isinstance(given, str) or (isinstance(given, list) and given and _are_ids(given))
    several = [given] if one else given
    if not isinstance(several, list) or not several:
        raise ValueError("give a text, a list of token ids, or a list of texts or of lists of token ids")
    if len(several) > MAX_CHOICES:
        raise ValueError(f"it has {len(several)} prompts; the limit is {MAX_CHOICES}: send several requests")
    wrong = next((i for i, p in enumerate(several) if not isinstance(p, str) and not (p and _are_ids(p))), None)
    if wrong is not None:
        raise ValueError(f"prompt {wrong} of the list is neither a text nor a list of token ids")
    return several


def _are_ids(given: Any) -> bool:
    return isinstance(given, list) and all(type(token) is int for token in given)


_IDS = {"type": "array", "items": {"type": "integer"}, "minItems": 1}
_SEVERAL = {"type": "array", "items": {"anyOf": [{"type": "string"}, _IDS]}, "minItems": 1, "maxItems": MAX_CHOICES}
Prompts = Annotated[
    list[Any], BeforeValidator(_prompts), WithJsonSchema({"anyOf": [{"type": "string"}, _IDS, _SEVERAL]})
]


class CompletionRequest(SamplingFields):
    """Texts, or token ids, to continue.

    `suffix` needs a model with fill-in-the-middle tokens. `add_special_tokens`: begin a text with BOS.
    `parse_special`: control tokens in a text are control tokens, not text.
    """

    refused: ClassVar[Refused] = REFUSED | {
        "best_of": ((1,), "use n"),
        "tools": (([],), _CHAT),
        "tool_choice": (("none", "auto"), _CHAT),
        "messages": (([],), _CHAT),
    }

    prompt: Prompts
    suffix: str = ""
    logprobs: Annotated[Integer, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    prompt_logprobs: Annotated[Integer, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    echo: bool = False
    add_special_tokens: bool = True
    parse_special: bool = False

    def generation(self, call: Call) -> Generation:
        """What to generate; runs in a worker thread."""
        service = call.service
        if self.n * len(self.prompt) > MAX_CHOICES:
            message = f"it asks for {self.n * len(self.prompt)} choices; the limit is {MAX_CHOICES}"
            raise ApiError(400, message, param="n")
        field, grammar = self.constraint()
        salt, prompts = call.cache_salt(self.cache_salt), []
        for prompt in self.prompt:
            with about("prompt"):
                ids = self._ids(service.tokenizer, service.parts.prompts, prompt)
            given: dict[str, Any] = {"logprobs": self.logprobs, "grammar": grammar, "lora": service.adapter(self.model)}
            params = self.params(service.context - len(ids), service.sampling, salt, **given)
            prompts.append((ids, params))
        fitted = service.checked(prompts[0][1])
        prompts = [(ids, replace(params, prediction=fitted.prediction)) for ids, params in prompts]
        wanted = [self.prompt_logprobs, self.logprobs if self.echo else None]
        reported = max((count for count in wanted if count is not None), default=None)
        numbers = 0 if reported is None else self.n * (1 + reported) * sum(len(ids) for ids, _ in prompts)
        if numbers > MAX_PROMPT_LOGPROBS:
            message = f"it asks for {numbers} log-probabilities of prompt tokens; the limit is {MAX_PROMPT_LOGPROBS}"
            raise ApiError(400, f"{message}: send fewer prompts, or ask for fewer", param="prompt")
        return Generation(
            prompts,
            self.n,
            () if grammar is None else (grammar,),
            field,
            empty=self.max_tokens == 0,
            prompt_logprobs=reported,
        )

    def _ids(self, tokenizer: Tokenizer, prompts: TokenIds, prompt: str | list[int]) -> list[int]:
        if self.suffix:
            marks = [list(tokenizer.special_tokens([mark])) for mark in _MIDDLE]
            if not all(marks) or not isinstance(prompt, str):
                message = "suffix needs a model with fill-in-the-middle tokens, and a text as the prompt: leave it out"
                raise ApiError(400, message, param="suffix")
            texts = [tokenizer.encode(text, add_bos=False) for text in (prompt, self.suffix)]
            begin = tokenizer.encode("") if self.add_special_tokens else []
            return prompts.encode([*begin, *marks[0], *texts[0], *marks[1], *texts[1], *marks[2]])
        if not isinstance(prompt, str):
            return prompts.encode(prompt)
        return prompts.encode(prompt, add_bos=self.add_special_tokens, parse_special=self.parse_special)


class CompletionChoice(BaseModel):
    """A continuation, or a part of it. `prompt_logprobs` is vLLM's: an entry per prompt token, null for the first."""

    index: int
    text: str
    finish_reason: Literal["stop", "length"] | None
    logprobs: CompletionLogprobs | None
    prompt_logprobs: list[dict[str, PromptLogprob] | None] | None = omitted()


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
    """Writes one continuation, the prompt before it if the request asks for an echo.

    It is made in a worker thread: the report on a long prompt takes a while.

    Args:
        number: of its prompt.
    """

    def __init__(self, tokenizer: Tokenizer, asked: CompletionRequest, run: Run, number: int) -> None:
        self._logprobs = None if asked.logprobs is None else CompletionLogprobsWriter(tokenizer)
        ids, prompt, scored = run.generation.prompts[number][0], asked.prompt[number], run.scored
        text = without_surrogates(prompt) if isinstance(prompt, str) else tokenizer.decode(ids)
        self._echo = text if asked.echo else ""
        self._echoed = self._reported = None
        if self._logprobs and asked.echo:
            self._echoed = self._logprobs.prompt(ids[0], scored[number], asked.logprobs or 0)
        if asked.prompt_logprobs is not None:
            self._reported = prompt_logprobs(tokenizer, scored[number], asked.prompt_logprobs)

    def whole(self, index: int, out: RequestOutput) -> CompletionChoice:
        """See `ChoiceWriter`."""
        return self._choice(index, out.text, out.finish_reason, out.logprobs or ())

    def part(self, index: int, piece: Piece) -> CompletionChoice:
        """See `ChoiceWriter`."""
        return self._choice(index, piece.text, piece.finish_reason, piece.logprobs)

    def _choice(
        self, index: int, text: str, reason: FinishReason | None, tokens: Sequence[TokenLogprobs]
    ) -> CompletionChoice:
        logprobs = None if self._logprobs is None else self._logprobs.next(tokens)
        choice = CompletionChoice(
            index=index,
            text=self._echo + text,
            finish_reason=reason,
            logprobs=self._echoed + logprobs if self._echoed and logprobs else logprobs,
            prompt_logprobs=self._reported,
        )
        self._echo, self._echoed, self._reported = "", None, None  # they are in the first part
        return choice


def _writers(tokenizer: Tokenizer, asked: CompletionRequest, run: Run) -> list[CompletionWriter]:
    return [CompletionWriter(tokenizer, asked, run, index // asked.n) for index in range(len(run.answers))]


@router.post("/completions", response_model=Completion, responses={200: STREAM})
async def completions(call: Call, asked: CompletionRequest) -> Response:
    """Continue texts."""
    service = call.service
    generation = await call.host.in_thread(asked.generation, call)
    run = Run(service.scheduler, generation, await call.while_connected(service.prepare(generation)))
    try:
        writers = await call.host.in_thread(_writers, service.tokenizer, asked, run)
    except BaseException:
        run.cancel()
        raise
    return await respond(call, asked, run, writers, Completion, CompletionChunk)
