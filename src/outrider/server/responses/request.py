"""The body of `POST /v1/responses`, and its translation to a conversation and sampling fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, PrivateAttr, model_validator

from outrider import Grammar
from outrider.chat.turn import TurnRequest
from outrider.sampling.params import MAX_LOGPROBS
from outrider.server.errors import ApiError
from outrider.server.fields import Fields, Refused
from outrider.server.responses.items import Item, messages_of
from outrider.server.responses.shapes import ResponseObject
from outrider.server.responses.tools import Offered, Tools, plain_choice
from outrider.server.sampling import REFUSED, SamplingFields
from outrider.server.structured_output import StructuredOutput

Name = Annotated[str, Field(max_length=512)]
"""What every response repeats is bounded."""
_NO_THOUGHT = ("none", "minimal")
_LOGPROBS, _ENCRYPTED = "message.output_text.logprobs", "reasoning.encrypted_content"


class TextFormat(Fields):
    """Text, any JSON object, or JSON that a schema describes."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    name: str | None = None
    schema_: Annotated[dict[str, Any] | bool | None, Field(alias="schema")] = None
    strict: bool | None = None


class TextConfig(Fields):
    """`format`: of the text. `verbosity` is accepted and not used."""

    format: TextFormat | None = None
    verbosity: Any = None


class Reasoning(Fields):
    """`effort`: "none" and "minimal" answer at once, others let the model reason first; so does asking for a summary.
    `summary`: thoughts come as the summary of reasoning items, else as their content."""

    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None


class Prompted(SamplingFields):
    """What `POST /v1/responses/input_tokens` takes: all that the prompt is made of."""

    refused: ClassVar[Refused] = REFUSED | {
        "conversation": ((), "conversations are not stored here: use previous_response_id"),
        "prompt": ((), "prompt templates are stored by OpenAI alone: give their text as instructions and input"),
    }

    input: str | list[Item] | None = None
    instructions: str | list[Item] | None = None
    previous_response_id: str | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] = "auto"
    parallel_tool_calls: bool = True
    reasoning: Reasoning = Field(default_factory=Reasoning)
    text: TextConfig = Field(default_factory=TextConfig)
    truncation: Literal["auto", "disabled"] = "disabled"
    n: Literal[1] = 1
    _toolbox: Tools = PrivateAttr()
    _offered: list[Offered] = PrivateAttr()
    _required: list[Offered] = PrivateAttr()

    @model_validator(mode="after")
    def _translate(self) -> Prompted:
        if self.input is None and self.previous_response_id is None:
            raise ValueError("input is missing: give a text or a list of items")
        self.tool_choice = plain_choice(self.tool_choice)
        self._toolbox = Tools(self.tools or ())
        self._offered, self._required = self._toolbox.chosen(self.tool_choice)
        if self.text.format is not None:
            self.response_format = _response_format(self.text.format)
        return self

    @property
    def items(self) -> list[Item]:
        """The input, as items."""
        if isinstance(self.input, str):
            return [{"type": "message", "role": "user", "content": self.input}]
        return list(self.input or ())

    @property
    def thinks(self) -> bool:
        """Whether the model is to reason first."""
        if self.reasoning.effort is not None:
            return self.reasoning.effort not in _NO_THOUGHT
        return self.summarized

    @property
    def summarized(self) -> bool:
        """Whether thoughts come as summaries."""
        return (self.reasoning.summary or self.reasoning.generate_summary) is not None

    @property
    def toolbox(self) -> Tools:
        """The tools."""
        return self._toolbox

    def turn(self, items: Sequence[Item]) -> TurnRequest:
        """The turns and tools.

        Args:
            items: the input, and what it continues.

        Raises:
            ApiError: an item cannot be read.
        """
        system = self.instructions
        before = [{"role": "system", "content": system}] if isinstance(system, str) and system else system or []
        chosen = [tool.function.name for tool in self._required]
        single = len(chosen) == 1 and isinstance(self.tool_choice, dict) and self.tool_choice["type"] != "allowed_tools"
        return TurnRequest(
            _messages(before, "instructions") + _messages(items, "input"),
            [tool.for_template() for tool in self._offered],
            tool_choice="required" if chosen else "auto",
            function=chosen[0] if single else None,
            parallel_tool_calls=self.parallel_tool_calls,
            template_kwargs={"enable_thinking": self.thinks},
        )

    def constraint(self) -> tuple[str | None, Grammar | None]:
        """See `StructuredOutput`."""
        field, grammar = super().constraint()
        return ("text.format" if field == "response_format" and self.text.format is not None else field), grammar


class ResponsesRequest(Prompted):
    """Items to continue."""

    max_output_tokens: Annotated[int, Field(ge=1)] | None = None
    store: bool = True
    background: bool = False
    include: list[str] = Field(default_factory=list)
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] = 0
    metadata: Annotated[dict[Name, Name], Field(max_length=16)] = Field(default_factory=dict)
    user: Name | None = None
    safety_identifier: Name | None = None
    prompt_cache_key: Name | None = None

    @model_validator(mode="after")
    def _limits(self) -> ResponsesRequest:
        self.max_tokens = self.max_output_tokens or self.max_tokens
        if self.background and not self.store:
            raise ValueError("background needs store: a response in the background is read from the store")
        return self

    @property
    def logprobs(self) -> int | None:
        """How many of the most likely tokens are reported for each; None for no log-probabilities at all."""
        return self.top_logprobs if _LOGPROBS in self.include or self.top_logprobs else None

    @property
    def opaque(self) -> bool:
        """Whether thoughts come as `encrypted_content` too."""
        return _ENCRYPTED in self.include

    def response(self, model: str, defaults: Mapping[str, Any]) -> ResponseObject:
        """The response before its first token; `defaults` as in `SamplingFields.params`."""
        form = self.text.format or TextFormat()
        return ResponseObject(
            background=self.background,
            instructions=self.instructions,
            max_output_tokens=self.max_output_tokens,
            metadata=self.metadata,
            model=model,
            parallel_tool_calls=self.parallel_tool_calls,
            previous_response_id=self.previous_response_id,
            prompt_cache_key=self.prompt_cache_key,
            reasoning={"effort": self.reasoning.effort, "summary": self.reasoning.summary},
            safety_identifier=self.safety_identifier,
            store=self.store,
            temperature=defaults.get("temperature", 1.0) if self.temperature is None else self.temperature,
            text={"format": form.model_dump(by_alias=True, exclude_none=True)},
            tool_choice=self.tool_choice,
            tools=self._toolbox.echoed,
            top_logprobs=self.top_logprobs,
            top_p=defaults.get("top_p", 1.0) if self.top_p is None else self.top_p,
            truncation=self.truncation,
            user=self.user,
        )


def _messages(items: Sequence[Item], field: str) -> list[dict[str, Any]]:
    try:
        return messages_of(items)
    except ValueError as error:
        raise ApiError(400, f"{field}: {error}", param=field) from error


def _response_format(form: TextFormat) -> Any:
    """The same as a `response_format` of the chat route."""
    given: dict[str, Any] = {"type": form.type}
    if form.type == "json_schema":
        if form.schema_ is None:
            raise ValueError('text.format has no schema: give {"type": "json_schema", "name": "...", "schema": {...}}')
        given["json_schema"] = {"name": form.name or "", "schema": form.schema_}
    return StructuredOutput.model_validate({"response_format": given}).response_format
