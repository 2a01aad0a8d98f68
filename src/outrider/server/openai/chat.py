"""`POST /v1/chat/completions`."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field, model_validator
from starlette.responses import Response

from outrider.chat.calls import Call as FunctionCall
from outrider.chat.markers import Markers
from outrider.chat.reader import AnswerReader, Parts
from outrider.chat.turn import TurnRequest
from outrider.engine.outputs import Piece, RequestOutput
from outrider.sampling.logprobs import TokenLogprobs
from outrider.sampling.params import MAX_LOGPROBS
from outrider.server.conversation import chat_generation
from outrider.server.errors import about
from outrider.server.fields import Integer, Refused
from outrider.server.generation import Generation
from outrider.server.openai.answers import Answer, Chunk, respond
from outrider.server.openai.logprobs import ChatLogprobs, chat_logprobs
from outrider.server.openai.shapes import ERRORS, STREAM, omitted
from outrider.server.openai.tools import ToolFields
from outrider.server.route import ApiRoute, Call
from outrider.server.sampling import REFUSED, SamplingFields
from outrider.tokenizer import Tokenizer

router = APIRouter(prefix="/v1/chat", route_class=ApiRoute, responses=ERRORS)

FinishReason = Literal["stop", "length", "tool_calls"]


class ChatRequest(ToolFields, SamplingFields):
    """A conversation to continue."""

    refused: ClassVar[Refused] = REFUSED | {
        "functions": (([],), "use tools"),
        "function_call": (("none", "auto"), "use tool_choice"),
        "audio": (({},), "there is no audio output"),
        "modalities": ((["text"],), 'the only output is text: leave it out, or give ["text"]'),
        "web_search_options": ((), "give the model a function of your own, in tools"),
        "chat_template": ((), "the model's own template is used: leave it out, or use /v1/completions"),
        "documents": (([],), "put them into the messages"),
        "echo": ((False,), "use /v1/completions"),
        "suffix": (("",), "use /v1/completions"),
    }

    # Read by `chat.messages`: what other programs write into a history must not end a conversation.
    messages: Annotated[list[dict[str, Any]], Field(min_length=1)]
    max_completion_tokens: Annotated[Integer, Field(ge=-1)] | None = None
    logprobs: bool = False
    top_logprobs: Annotated[Integer, Field(ge=0, le=MAX_LOGPROBS)] = 0
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)
    reasoning_effort: str | None = None
    thinking_budget: Annotated[Integer, Field(ge=0)] | None = None
    continue_final_message: bool = False
    add_generation_prompt: bool = True

    @model_validator(mode="after")
    def _one_limit(self) -> ChatRequest:
        if self.max_completion_tokens is not None:
            self.max_tokens = self.max_completion_tokens
        return self

    def turn(self) -> TurnRequest:
        """What is asked of the conversation. Raises UsageError."""
        choice = self.tool_choice
        return TurnRequest(
            self.messages,
            [tool.for_template() for tool in self.offered],
            tool_choice="none" if choice.type == "none" else "required" if self.required else "auto",
            function=choice.function.name if choice.type == "function" and choice.function else None,
            parallel_tool_calls=self.parallel_tool_calls,
            template_kwargs=self.chat_template_kwargs,
            reasoning_effort=self.reasoning_effort,
            thinking_budget=self.thinking_budget,
            continue_final_message=self.continue_final_message,
            add_generation_prompt=self.add_generation_prompt,
        )

    def generation(self, call: Call) -> tuple[Generation, Markers]:
        """What to generate, and how its text is read; runs in a worker thread."""
        with about("messages"):
            turn = self.turn()
        logprobs = self.top_logprobs if self.logprobs else None
        salt = call.cache_salt(self.cache_salt)
        return chat_generation(call.service, turn, self, cache_salt=salt, logprobs=logprobs)


class CalledFunction(BaseModel):
    """`arguments`: a JSON object, as text."""

    name: str
    arguments: str


class ToolCall(BaseModel):
    """A call by the model. `index`: its number, in a stream."""

    index: int | None = omitted()
    id: str = Field(default_factory=lambda: f"call_{secrets.token_hex(12)}")
    type: Literal["function"] = "function"
    function: CalledFunction

    @classmethod
    def of(cls, call: FunctionCall, index: int | None = None) -> ToolCall:
        """From what the reader found."""
        return cls(index=index, function=CalledFunction(name=call.name, arguments=call.arguments))


class AssistantMessage(BaseModel):
    """The model's turn. `reasoning_content` is the name that DeepSeek and vLLM use; OpenAI has none."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: None = None
    reasoning_content: str | None = omitted()
    tool_calls: list[ToolCall] | None = omitted()

    @classmethod
    def of(cls, parts: Parts) -> AssistantMessage:
        """From the parts of a whole answer."""
        return cls(
            content=(parts.content or None) if parts.calls else parts.content,
            reasoning_content=parts.reasoning or None,
            tool_calls=[ToolCall.of(call) for call in parts.calls] or None,
        )


class Delta(BaseModel):
    """A part of the model's turn."""

    role: Literal["assistant"] | None = omitted()
    content: str | None = omitted()
    reasoning_content: str | None = omitted()
    tool_calls: list[ToolCall] | None = omitted()

    @classmethod
    def of(cls, parts: Parts, calls_before: int) -> Delta:
        """From the parts of a piece; `calls_before` is the number of earlier calls."""
        return cls(
            content=parts.content if parts.content or not (parts.reasoning or parts.calls) else None,
            reasoning_content=parts.reasoning or None,
            tool_calls=[ToolCall.of(call, index) for index, call in enumerate(parts.calls, calls_before)] or None,
        )


class ChatChoice(BaseModel):
    """One turn of the model."""

    index: int
    message: AssistantMessage
    finish_reason: FinishReason
    logprobs: ChatLogprobs | None


class ChatCompletion(Answer):
    """Turns of the model."""

    prefix = "chatcmpl"
    object: Literal["chat.completion"] = "chat.completion"
    choices: list[ChatChoice]


class ChunkChoice(BaseModel):
    """A part of one turn."""

    index: int
    delta: Delta
    finish_reason: FinishReason | None
    logprobs: ChatLogprobs | None


class ChatChunk(Chunk):
    """A part of one turn, or the usage."""

    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    choices: list[ChunkChoice]


class TurnWriter:
    """Writes one turn.

    Args:
        logprobs: whether log-probabilities are reported.
    """

    def __init__(self, tokenizer: Tokenizer, reader: AnswerReader, *, logprobs: bool) -> None:
        self._tokenizer, self._reader, self._with_logprobs = tokenizer, reader, logprobs
        self._begun = False

    def whole(self, index: int, out: RequestOutput) -> ChatChoice:
        """See `ChoiceWriter`."""
        parts = self._reader.push(out.text) + self._reader.flush()
        reason, logprobs = self._reason(out.finish_reason), self._logprobs(out.logprobs)
        return ChatChoice(index=index, message=AssistantMessage.of(parts), finish_reason=reason, logprobs=logprobs)

    def part(self, index: int, piece: Piece) -> ChunkChoice:
        """See `ChoiceWriter`."""
        calls_before = self._reader.calls
        parts = self._reader.push(piece.text)
        if piece.finish_reason is not None:
            parts += self._reader.flush()
        delta = Delta.of(parts, calls_before)
        if not self._begun:
            delta.role, self._begun = "assistant", True
        reason = None if piece.finish_reason is None else self._reason(piece.finish_reason)
        return ChunkChoice(index=index, delta=delta, finish_reason=reason, logprobs=self._logprobs(piece.logprobs))

    def _reason(self, reason: Literal["stop", "length"]) -> FinishReason:
        return "tool_calls" if reason == "stop" and self._reader.calls else reason

    def _logprobs(self, tokens: Sequence[TokenLogprobs] | None) -> ChatLogprobs | None:
        return chat_logprobs(self._tokenizer, tokens or ()) if self._with_logprobs else None


@router.post("/completions", response_model=ChatCompletion, responses={200: STREAM})
async def chat_completions(call: Call, asked: ChatRequest) -> Response:
    """The model's next turn in a conversation."""
    service = call.service
    generation, markers = await call.host.in_thread(asked.generation, call)
    run = await service.begin(generation)
    writers = [TurnWriter(service.tokenizer, markers.reader(), logprobs=asked.logprobs) for _ in run.answers]
    return await respond(call, asked, run, writers, ChatCompletion, ChatChunk)
