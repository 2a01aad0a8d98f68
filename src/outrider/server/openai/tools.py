"""Tools of a chat request: the functions that the model may call, and its earlier calls."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from outrider.server.fields import Fields

MAX_TOOLS = 128
_NAME = r"^[A-Za-z0-9_.\-]{1,64}$"


class Function(Fields):
    """A function's name, its description, and the JSON schema of its arguments."""

    name: Annotated[str, Field(pattern=_NAME)]
    description: str = ""
    parameters: dict[str, Any] | None = None
    strict: bool = False


class Tool(Fields):
    """A function, as OpenAI lists it."""

    type: Literal["function"] = "function"
    function: Function

    def for_template(self) -> dict[str, Any]:
        """In the form of chat templates."""
        return {"type": "function", "function": self.function.model_dump(exclude_none=True, exclude={"strict"})}


class FunctionName(Fields):
    """The name of a function."""

    name: str


class NamedTool(Fields):
    """A function among the tools."""

    type: Literal["function"] = "function"
    function: FunctionName


class AllowedTools(Fields):
    """Some of the tools; one of them must be called if the mode is "required"."""

    mode: Literal["auto", "required"] = "auto"
    tools: list[NamedTool]


class ToolChoice(Fields):
    """A function to call, or those that may be called."""

    type: Literal["none", "auto", "required", "function", "allowed_tools"]
    function: FunctionName | None = None
    allowed_tools: AllowedTools | None = None


def _choice(given: Any) -> Any:
    """The words "none", "auto" and "required" are choices by themselves."""
    return {"type": given} if isinstance(given, str) else given


class ToolFields(Fields):
    """The fields of a request about tools."""

    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS)] = Field(default_factory=list)
    tool_choice: Annotated[ToolChoice, BeforeValidator(_choice)] = ToolChoice(type="auto")
    parallel_tool_calls: bool = True

    @model_validator(mode="after")
    def _choice_fits(self) -> ToolFields:
        names = [tool.function.name for tool in self.tools]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"tools has two functions called {twice}: give each its own name")
        unknown = next((name for name in self._chosen or () if name not in names), None)
        if unknown is not None:
            raise ValueError(f"tool_choice names the function {unknown}, which is not in tools")
        if self.required and not self.offered:
            raise ValueError("tool_choice requires a call, but there are no tools: give some, or leave it out")
        return self

    @property
    def _chosen(self) -> list[str] | None:
        """The names of the functions that may be called; None for all."""
        choice = self.tool_choice
        if choice.type == "function":
            if choice.function is None:
                raise ValueError('tool_choice: give {"type": "function", "function": {"name": "..."}}')
            return [choice.function.name]
        if choice.type == "allowed_tools":
            if choice.allowed_tools is None:
                raise ValueError('tool_choice: give {"type": "allowed_tools", "allowed_tools": {"tools": [...]}}')
            return [tool.function.name for tool in choice.allowed_tools.tools]
        return [] if choice.type == "none" else None

    @property
    def offered(self) -> list[Tool]:
        """The tools in the prompt."""
        if self.tool_choice.type == "function":  # the others are context
            return self.tools
        return [tool for tool in self.tools if self._chosen is None or tool.function.name in self._chosen]

    @property
    def required(self) -> bool:
        """Whether a function must be called."""
        allowed = self.tool_choice.allowed_tools
        return self.tool_choice.type in ("required", "function") or (allowed is not None and allowed.mode == "required")
