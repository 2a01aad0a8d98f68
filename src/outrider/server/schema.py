"""Requests as OpenAI's API has them, checked, and turned into sampling parameters."""

from __future__ import annotations

import secrets
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from outrider import Grammar, SamplingParams
from outrider.chat.turn import TurnRequest
from outrider.sampling.params import MAX_DRAFT, MAX_LOGPROBS
from outrider.server.formats import Formed
from outrider.server.tools import NamedChoice, WithTools

_UNSUPPORTED = {
    "functions": "functions have become tools: give them there",
    "function_call": "function_call has become tool_choice: give it there",
    "suffix": "text cannot be inserted before a suffix: leave it out",
    "audio": "there is no audio output: leave it out",
}
_ONLY_CHAT = {
    "tools": "tools belong to a conversation: use /v1/chat/completions",
    "tool_choice": "tools belong to a conversation: use /v1/chat/completions",
}
_HARMLESS = ("text", "none", "auto")


MAX_BIASES = 1024
MAX_STOP_TOKENS = 128
MAX_CLIENT_SALT = 256


def _bounded(biases: Any) -> Any:
    """Refused before each entry is looked at."""
    if isinstance(biases, dict) and len(biases) > MAX_BIASES:
        raise ValueError(f"it has {len(biases)} entries, and at most {MAX_BIASES} are taken: leave some out")
    return biases


Biases = Annotated[
    dict[int, Annotated[float, Field(ge=-100, le=100)]], Field(max_length=MAX_BIASES), BeforeValidator(_bounded)
]


class StreamOptions(BaseModel):
    """`include_usage`: end the stream with a chunk that has the usage."""

    model_config = ConfigDict(extra="forbid")
    include_usage: bool = False


class Sampled(Formed):
    """What both routes take. `user`, `metadata` and the like are accepted and not used."""

    model_config = ConfigDict(extra="forbid")
    unsupported: ClassVar[dict[str, str]] = _UNSUPPORTED | _ONLY_CHAT

    model: str = ""
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    n: Annotated[int, Field(ge=1, le=8)] = 1
    stop: str | Annotated[list[str], Field(max_length=16)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**64)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.0
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.0
    logit_bias: Biases | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    # Beyond OpenAI's, under the names that vLLM's users know.
    top_k: Annotated[int, Field(ge=-1)] = 0
    min_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    typical_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    repetition_penalty: Annotated[float, Field(ge=0.01, le=100)] = 1.0
    min_tokens: Annotated[int, Field(ge=0)] = 0
    stop_token_ids: Annotated[list[int], Field(max_length=MAX_STOP_TOKENS, fail_fast=True)] | None = None
    ignore_eos: bool = False
    cache_salt: Annotated[str, Field(max_length=MAX_CLIENT_SALT)] | None = None
    # As llama.cpp's server has it.
    cache_prompt: bool = True
    # outrider's own: drafting for this request alone; the tokens are the same.
    drafting: Literal["auto", "off"] | Annotated[int, Field(ge=0, le=MAX_DRAFT)] = "auto"
    user: Any = None
    metadata: Any = None
    store: Any = None
    service_tier: Any = None
    reasoning_effort: Any = None

    @model_validator(mode="before")
    @classmethod
    def _say_what_is_not_supported(cls, given: Any) -> Any:
        if isinstance(given, dict):
            for name, problem in cls.unsupported.items():
                value = given.pop(name, None)
                if isinstance(value, dict):
                    value = value.get("type")
                if value and value not in _HARMLESS:  # an empty list of tools asks for nothing
                    raise ValueError(problem)
        return given

    def params(
        self,
        room: int,
        salt: str,
        logprobs: int | None,
        grammar: Grammar | None = None,
    ) -> list[SamplingParams]:
        """One set for each of the `n` answers; `room` is the most tokens that still fit, `salt` the
        `SamplingParams.cache_salt`."""
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        seed = secrets.randbits(63) if self.seed is None else self.seed % 2**64
        most = min(self.max_tokens or room, room)
        return SamplingParams(
            max_tokens=most,
            temperature=1.0 if self.temperature is None else self.temperature,
            top_k=max(self.top_k, 0),
            top_p=1.0 if self.top_p is None else self.top_p,
            min_p=self.min_p,
            typical_p=self.typical_p,
            repetition_penalty=self.repetition_penalty,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            logit_bias=self.logit_bias or {},
            min_tokens=min(self.min_tokens, most),
            logprobs=logprobs,
            seed=seed,
            n=self.n,
            stop=stop,
            stop_token_ids=tuple(self.stop_token_ids or ()),
            ignore_end=self.ignore_eos,
            grammar=grammar,
            draft=self.drafting,
            cache_prompt=self.cache_prompt,
            cache_salt=salt,
        ).each()


class CompletionRequest(Sampled):
    """`POST /v1/completions`."""

    # Of a list that is wrong throughout, one error is enough.
    prompt: (
        str
        | Annotated[list[int], Field(min_length=1, fail_fast=True)]
        | Annotated[list[str], Field(min_length=1, max_length=1, fail_fast=True)]
    )
    logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    echo: Literal[False] = False
    # As in vLLM and in llama.cpp's server: for clients that apply the chat template themselves.
    add_special_tokens: bool = True
    parse_special: bool = False
    best_of: Literal[1] | None = None

    @property
    def only_prompt(self) -> str | list[int]:
        """The prompt: a list of one text is that text."""
        if isinstance(self.prompt, str):
            return self.prompt
        texts = [part for part in self.prompt if isinstance(part, str)]
        return texts[0] if texts else [part for part in self.prompt if isinstance(part, int)]


class ChatRequest(WithTools, Sampled):
    """`POST /v1/chat/completions`."""

    unsupported: ClassVar[dict[str, str]] = _UNSUPPORTED

    # Read by `chat.messages`: what other programs write into a history must not end a conversation.
    messages: Annotated[list[dict[str, Any]], Field(min_length=1, fail_fast=True)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] = 0
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)
    reasoning_effort: str | None = None
    thinking_budget: Annotated[int, Field(ge=0)] | None = None
    continue_final_message: bool = False
    add_generation_prompt: bool = True

    @model_validator(mode="after")
    def _one_limit(self) -> ChatRequest:
        self.max_tokens = self.max_completion_tokens or self.max_tokens
        return self

    def turn(self, *, ignore_media: bool) -> TurnRequest:
        """What is asked of the conversation. Raises UsageError."""
        choice = self.tool_choice
        return TurnRequest(
            self.messages,
            [tool.plain() for tool in self.tools or ()],
            tool_choice="auto" if choice is None or isinstance(choice, NamedChoice) else choice,
            function=choice.function.name if isinstance(choice, NamedChoice) else None,
            parallel_tool_calls=self.parallel_tool_calls is not False,
            template_kwargs=self.chat_template_kwargs,
            reasoning_effort=self.reasoning_effort,
            thinking_budget=self.thinking_budget,
            continue_final_message=self.continue_final_message,
            add_generation_prompt=self.add_generation_prompt,
            ignore_media=ignore_media,
        )
