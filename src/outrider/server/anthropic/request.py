"""The body of `POST /v1/messages`, and its translation to a conversation and sampling fields."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from outrider.chat.turn import TurnRequest
from outrider.server.anthropic.blocks import Block, for_template
from outrider.server.errors import ApiError, about
from outrider.server.fields import Fields, Integer, Number
from outrider.server.openai.tools import MAX_TOOLS
from outrider.server.sampling import MAX_CLIENT_SALT, Draft, SamplingFields, Seed, StopTexts

_log = logging.getLogger("outrider.server")
_CHOICES: dict[str, Literal["auto", "none", "required"]] = {
    "auto": "auto",
    "none": "none",
    "any": "required",
    "tool": "required",
}
"""Anthropic's `tool_choice` -> OpenAI's."""


class GivenMessage(Fields):
    """A turn: a text or content blocks."""

    role: Literal["user", "assistant", "system"]
    content: str | list[Block]


class GivenTool(Fields):
    """A tool. Those of a `type` that Anthropic's servers run have no schema, and are not offered."""

    type: str | None = None
    name: str
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    cache_control: Any = None


class ToolChoice(Fields):
    """Whether the model must call a tool, and which."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Thinking(Fields):
    """Whether the model reasons first. `display`: "omitted" returns the thought's block without its text."""

    type: Literal["enabled", "adaptive", "disabled", "between_tools"]
    budget_tokens: Annotated[int, Field(ge=1)] | None = None
    display: str | None = None


class OutputFormat(Fields):
    """JSON that a schema describes."""

    type: Literal["json_schema"]
    schema_: Annotated[dict[str, Any], Field(alias="schema")]


class OutputConfig(Fields):
    """`format`: of the answer."""

    format: OutputFormat | None = None


class Prompted(Fields):
    """What `POST /v1/messages/count_tokens` takes: all that the prompt is made of."""

    model: str = ""
    messages: Annotated[list[GivenMessage], Field(min_length=1)]
    system: str | list[Block] | None = None
    tools: Annotated[list[GivenTool], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    output_format: OutputFormat | None = None
    # Accepted, and not used.
    cache_control: Any = None
    metadata: Any = None
    service_tier: Any = None

    @property
    def thinks(self) -> bool:
        """Whether the model is to reason first."""
        return self.thinking is not None and self.thinking.type in ("enabled", "adaptive")

    def turn(self) -> TurnRequest:
        """The turns and tools. Raises ApiError."""
        messages = for_template("system", self.system) if self.system else []
        for message in self.messages:
            messages += for_template(message.role, message.content)
        choice = self.tool_choice or ToolChoice(type="auto")
        offered = self._functions()
        if choice.type in ("any", "tool") and not any(choice.name in (None, tool["name"]) for tool in offered):
            raise ApiError(400, "tool_choice requires a tool that is not in tools", param="tool_choice")
        with about("tools"):
            return TurnRequest(
                messages,
                [{"type": "function", "function": function} for function in offered],
                tool_choice=_CHOICES[choice.type],
                function=choice.name if choice.type == "tool" else None,
                parallel_tool_calls=not choice.disable_parallel_tool_use,
                template_kwargs={"enable_thinking": self.thinks},
                thinking_budget=self.thinking.budget_tokens if self.thinking and self.thinks else None,
            )

    def response_format(self) -> Mapping[str, Any] | None:
        """The format of the answer, as OpenAI writes it."""
        found = self.output_format or (self.output_config and self.output_config.format)
        return {"type": "json_schema", "json_schema": {"schema": found.schema_}} if found else None

    def _functions(self) -> list[dict[str, Any]]:
        offered = []
        for tool in self.tools or ():
            if tool.input_schema is None:
                kind = tool.type or "without a type"
                _log.warning("the tool %r (%r) runs on Anthropic's servers alone: it is not offered", tool.name, kind)
                continue
            function = {"name": tool.name, "description": tool.description or "", "parameters": tool.input_schema}
            offered.append(function)
        return offered


class MessagesRequest(Prompted):
    """Turns to continue."""

    max_tokens: Annotated[Integer, Field(ge=1)]
    temperature: Annotated[Number, Field(ge=0, le=2)] | None = None
    top_p: Annotated[Number, Field(ge=0, le=1)] | None = None
    top_k: Annotated[Integer, Field(ge=-1)] | None = None
    stop_sequences: StopTexts | None = None
    stream: bool | None = None
    # outrider's own, as on its other routes.
    seed: Seed | None = None
    cache_salt: Annotated[str, Field(max_length=MAX_CLIENT_SALT)] | None = None
    cache_prompt: bool | None = None
    drafting: Draft | None = None

    def sampling(self) -> SamplingFields:
        """How tokens are chosen."""
        fields = {
            "model": self.model,
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "stop": self.stop_sequences,
            "stream": self.stream,
            "seed": self.seed,
            "cache_prompt": self.cache_prompt,
            "drafting": self.drafting,
            "response_format": self.response_format(),
        }
        return SamplingFields.checked(fields)
