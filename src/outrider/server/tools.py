"""Functions that the model may call: the request's part of it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

MAX_TOOLS = 128
_NAME = r"^[A-Za-z0-9_.\-]{1,64}$"


class Function(BaseModel):
    """What a function is called, what it does, and the JSON schema of its arguments."""

    model_config = ConfigDict(extra="ignore")
    name: Annotated[str, Field(pattern=_NAME)]
    description: str = ""
    parameters: dict[str, Any] | None = None


class Tool(BaseModel):
    """A function, as OpenAI lists it."""

    model_config = ConfigDict(extra="ignore")
    type: Literal["function"]
    function: Function

    def plain(self) -> dict[str, Any]:
        """As chat templates read it."""
        return {"type": "function", "function": self.function.model_dump(exclude_none=True)}


class NamedFunction(BaseModel):
    """A function that has to be called."""

    name: str


class NamedChoice(BaseModel):
    """`tool_choice` with a function."""

    type: Literal["function"]
    function: NamedFunction


class WithTools(BaseModel):
    """The fields of a request that are about functions."""

    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedChoice | None = None
    parallel_tool_calls: bool | None = None

    @model_validator(mode="after")
    def _choice_fits(self) -> WithTools:
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
