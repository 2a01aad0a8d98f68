"""Tools of a chat request: the functions that the model may call, and its earlier calls."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

MAX_TOOLS = 128
_NAME = r"^[A-Za-z0-9_.\-]{1,64}$"


class Function(BaseModel):
    """A function's name, its description, and the JSON schema of its arguments."""

    model_config = ConfigDict(extra="ignore")
    name: Annotated[str, Field(pattern=_NAME)]
    description: str = ""
    parameters: dict[str, Any] | None = None


class Tool(BaseModel):
    """A function, as OpenAI lists it."""

    model_config = ConfigDict(extra="ignore")
    type: Literal["function"]
    function: Function

    def for_template(self) -> dict[str, Any]:
        """In the form of chat templates."""
        return {"type": "function", "function": self.function.model_dump(exclude_none=True)}


class NamedFunction(BaseModel):
    """The name of a required function."""

    name: str


class NamedChoice(BaseModel):
    """`tool_choice` that requires one function."""

    type: Literal["function"]
    function: NamedFunction


class GivenCall(BaseModel):
    """A call in an assistant message."""

    class Called(BaseModel):
        """The called function, and a JSON object as text."""

        name: Annotated[str, Field(pattern=_NAME)]
        arguments: str = "{}"

    model_config = ConfigDict(extra="ignore")
    id: str = ""
    type: Literal["function"] = "function"
    function: Called

    def for_template(self) -> dict[str, Any]:
        """In the form of chat templates, with the arguments as an object.

        Raises:
            ValueError: they are not a JSON object.
        """
        try:
            arguments = json.loads(self.function.arguments or "{}")
        except (ValueError, RecursionError) as error:
            raise ValueError(f"the arguments of a call of {self.function.name} are not JSON: {error}") from error
        if not isinstance(arguments, dict):
            raise ValueError(f"the arguments of a call of {self.function.name} are not a JSON object")
        called = {"name": self.function.name, "arguments": arguments}
        return {"id": self.id, "type": "function", "function": called}


class ToolFields(BaseModel):
    """The fields of a request about tools."""

    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedChoice | None = None
    parallel_tool_calls: bool | None = None

    @model_validator(mode="after")
    def _choice_fits(self) -> ToolFields:
        names = [tool.function.name for tool in self.tools or ()]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"tools has two functions called {twice}: give each its own name")
        choice = self.tool_choice
        if isinstance(choice, NamedChoice) and choice.function.name not in names:
            raise ValueError(f"tool_choice names the function {choice.function.name}, which is not in tools")
        if choice == "required" and not names:
            raise ValueError("tool_choice is required, and there are no tools: give some, or leave it out")
        return self

    @property
    def offered(self) -> list[Tool]:
        """The functions in the prompt."""
        return [] if self.tool_choice == "none" else list(self.tools or ())

    @property
    def required(self) -> list[Function]:
        """Those of which one must be called; empty if none must."""
        if isinstance(self.tool_choice, NamedChoice):
            name = self.tool_choice.function.name
            return [tool.function for tool in self.offered if tool.function.name == name]
        return [tool.function for tool in self.offered] if self.tool_choice == "required" else []

    @property
    def parallel(self) -> bool:
        """Whether more calls may follow a required one."""
        return self.tool_choice == "required" and self.parallel_tool_calls is not False
