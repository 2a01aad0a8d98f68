"""Tools of a request: as functions that the model may call, and its calls as items."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pydantic import ValidationError

from outrider.chat.calls import Call as FunctionCall
from outrider.server.openai.tools import MAX_TOOLS, Function

Tool = dict[str, Any]

CUSTOM_INPUT = "input"
"""The one argument of the function that stands for a custom tool, whose input is any text."""
_CALLABLE = ("function", "custom")
_FIELDS = {
    "function": ("type", "name", "description", "parameters", "strict"),
    "custom": ("type", "name", "description", "format"),
    "namespace": ("type", "name", "description", "tools"),
}
"""What the model sees of each kind of tool."""
_log = logging.getLogger("outrider.server")


def shown_name(name: str, namespace: object = None) -> str:
    """The name that the model sees of a tool."""
    return f"{namespace}.{name}" if namespace else name


@dataclass(frozen=True)
class Offered:
    """A tool that the model may call.

    function: as the model sees it. name, namespace: as the client does. custom: its input is a text.
    """

    function: Function
    name: str
    namespace: str | None = None
    custom: bool = False

    def for_template(self) -> dict[str, Any]:
        """In the form of chat templates."""
        return {"type": "function", "function": self.function.model_dump(exclude_none=True)}

    def input_of(self, call: FunctionCall) -> str:
        """The text that the model gives a custom tool."""
        given = json.loads(call.arguments).get(CUSTOM_INPUT)
        return given if isinstance(given, str) else call.arguments


class Tools:
    """The tools of a request. Those that only OpenAI's servers run are left out, with a line in the log.

    Raises:
        ValueError: a tool is incomplete, there are too many, or two have the same name.
    """

    def __init__(self, given: Sequence[Tool] = ()) -> None:
        self._given = given
        found = [offered for number, tool in enumerate(given) for offered in _offered(tool, f"tools.{number}", None)]
        if len(found) > MAX_TOOLS:
            raise ValueError(f"tools has {len(found)} functions, and at most {MAX_TOOLS} are taken: leave some out")
        self.offered = {offered.function.name: offered for offered in found}
        if len(self.offered) < len(found):
            names = [offered.function.name for offered in found]
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"tools has two functions called {twice}: give each its own name")

    @property
    def echoed(self) -> list[Tool]:
        """The tools that are not left out, in the client's form, with the fields that count."""
        return [_plain(tool) for tool in self._given if str(tool.get("type")) in _FIELDS]

    def chosen(self, choice: str | Tool) -> tuple[list[Offered], list[Offered]]:
        """The tools that the prompt offers by a `tool_choice`, and those of which one must be called.

        Args:
            choice: as `plain_choice` returns it.

        Raises:
            ValueError: it requires a tool that is not offered, or it is of an unknown kind.
        """
        offered = list(self.offered.values())
        if choice == "auto":
            return offered, []
        if choice == "none":
            return [], []
        if choice == "required":
            return offered, _some(offered, "tool_choice is required, and there are no tools to call: give some")
        if isinstance(choice, dict) and choice["type"] in _CALLABLE:
            return offered, self._named([choice])
        if isinstance(choice, dict) and choice["type"] == "allowed_tools":
            found = self._named(choice["tools"])
            required = choice["mode"] == "required"
            return found, _some(found, "tool_choice allows no tool that can be called") if required else []
        kind = choice["type"] if isinstance(choice, dict) else choice
        raise ValueError(
            f"tool_choice requires {kind!r:.80}, which this server does not have: "
            "use auto, none, required, or a function"
        )

    def _named(self, choices: Sequence[Tool]) -> list[Offered]:
        names = [shown_name(str(choice.get("name") or ""), choice.get("namespace")) for choice in choices]
        missing = next((name for name in names if name not in self.offered), None)
        if missing is not None:
            raise ValueError(f"tool_choice names the function {missing}, which is not in tools")
        return [self.offered[name] for name in names]


def _plain(tool: Tool) -> Tool:
    plain = {name: tool[name] for name in _FIELDS[tool["type"]] if name in tool}
    if "tools" in plain:
        plain["tools"] = [_plain(each) for each in plain["tools"] if each.get("type") in _CALLABLE]
    if isinstance(plain.get("format"), dict):
        names = ("type", "syntax", "definition")
        plain["format"] = {name: plain["format"][name] for name in names if name in plain["format"]}
    return plain


def plain_choice(choice: str | Tool) -> str | Tool:
    """A `tool_choice` with the fields that count, without the tools that the model cannot call."""
    if isinstance(choice, str):
        return choice
    kind = choice.get("type")
    if kind in ("auto", "none", "required"):
        return str(kind)
    if kind != "allowed_tools":
        return {"type": kind} | {name: choice[name] for name in ("name", "namespace") if name in choice}
    given = choice.get("tools")
    tools = given[:MAX_TOOLS] if isinstance(given, list) else []
    known = [plain_choice(tool) for tool in tools if isinstance(tool, dict) and tool.get("type") in _CALLABLE]
    return {"type": kind, "mode": "required" if choice.get("mode") == "required" else "auto", "tools": known}


def _some(found: list[Offered], problem: str) -> list[Offered]:
    if not found:
        raise ValueError(problem)
    return found


def _offered(tool: Tool, where: str, namespace: str | None) -> list[Offered]:
    kind, name = tool.get("type"), str(tool.get("name") or "")
    if kind == "namespace":
        inner = tool.get("tools") or []
        if not isinstance(inner, list) or not all(isinstance(each, dict) for each in inner):
            raise ValueError(f"{where}.tools: give a list of tools")
        return [offered for each in inner for offered in _offered(each, where, name)]
    if kind not in _CALLABLE:
        _report(str(kind)[:64])
        return []
    custom = kind == "custom"
    shown = {"name": shown_name(name, namespace), "description": tool.get("description") or ""}
    if custom:
        shown |= {"description": _described(tool), "parameters": _TEXT}
    else:
        shown["parameters"] = tool.get("parameters")
    try:
        return [Offered(Function.model_validate(shown), name, namespace, custom)]
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        raise ValueError(f"{where}.{'.'.join(map(str, first['loc']))}: {first['msg']}") from error


@lru_cache(maxsize=256)
def _report(kind: str) -> None:
    """Logs each kind once; clients choose them, so their number is bounded."""
    _log.warning("the tool %s is left out: this server does not run it", kind)


_TEXT = {"type": "object", "properties": {CUSTOM_INPUT: {"type": "string"}}, "required": [CUSTOM_INPUT]}


def _described(tool: Tool) -> str:
    """The description of a custom tool, with the grammar of its input."""
    form, description = tool.get("format"), str(tool.get("description") or "")
    if not isinstance(form, dict) or form.get("type") != "grammar":
        return description
    return f"{description}\nThe {form.get('syntax')} grammar of {CUSTOM_INPUT}:\n{form.get('definition')}".strip()
