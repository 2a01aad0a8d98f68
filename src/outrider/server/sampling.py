"""The fields of a request that say how tokens are chosen, and their translation to `SamplingParams`."""

from __future__ import annotations

import secrets
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from outrider import Grammar, SamplingParams
from outrider.sampling.params import MAX_DRAFT
from outrider.server.service import Service
from outrider.server.structured_output import StructuredOutput

UNSUPPORTED = {
    "functions": "functions have become tools: give them there",
    "function_call": "function_call has become tool_choice: give it there",
    "suffix": "text cannot be inserted before a suffix: leave it out",
    "audio": "there is no audio output: leave it out",
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


class SamplingFields(StructuredOutput):
    """What completions and chat have in common. `user`, `metadata` and the like are accepted and not used."""

    model_config = ConfigDict(extra="forbid")
    unsupported: ClassVar[dict[str, str]] = UNSUPPORTED

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

    @property
    def with_usage(self) -> bool:
        """Whether the last chunk of a stream has the usage."""
        return self.stream_options is not None and self.stream_options.include_usage

    def check_model(self, service: Service) -> None:
        """Raises ApiError if another model is named."""
        if self.model:
            service.check_model(self.model)

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
        cache_salt: str,
        logprobs: int | None,
        grammar: Grammar | None = None,
        keep_special: tuple[str, ...] = (),
        stop: tuple[str, ...] = (),
    ) -> SamplingParams:
        """The engine's parameters.

        Args:
            room: tokens that fit into the context after the prompt.
            cache_salt, logprobs, grammar, keep_special: as in `SamplingParams`.
            stop: stop texts besides the request's own.
        """
        own_stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        max_tokens = min(self.max_tokens or room, room)
        return SamplingParams(
            max_tokens=max_tokens,
            temperature=1.0 if self.temperature is None else self.temperature,
            top_k=max(self.top_k, 0),
            top_p=1.0 if self.top_p is None else self.top_p,
            min_p=self.min_p,
            typical_p=self.typical_p,
            repetition_penalty=self.repetition_penalty,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            logit_bias=self.logit_bias or {},
            min_tokens=min(self.min_tokens, max_tokens),
            logprobs=logprobs,
            seed=secrets.randbits(63) if self.seed is None else self.seed % 2**64,
            n=self.n,
            stop=own_stop + stop,
            stop_token_ids=tuple(self.stop_token_ids or ()),
            ignore_end=self.ignore_eos,
            grammar=grammar,
            keep_special=keep_special,
            draft=self.drafting,
            cache_prompt=self.cache_prompt,
            cache_salt=cache_salt,
        )
