"""The model's next turn: the prompt that leads to it, how it is generated, and how it is read."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from outrider.chat import grammar, json_calls
from outrider.chat.folding import alternating, without_tools
from outrider.chat.markers import Markers, knows_tools
from outrider.chat.messages import Message, MessagesError, read_messages
from outrider.chat.reader import CHANNEL, CHANNEL_END, RESPONSE
from outrider.chat.template import ChatTemplate
from outrider.errors import UsageError, given
from outrider.sampling.grammar import Grammar
from outrider.sampling.params import SamplingParams
from outrider.sampling.thoughts import Thoughts
from outrider.tokenizer import Tokenizer

_EFFORTS = {"none": False, "minimal": False, "low": True, "medium": True, "high": True, "xhigh": True, "max": True}
"""OpenAI's `reasoning_effort` -> whether the model thinks."""


@dataclass(frozen=True)
class Ask:
    """What is asked of a conversation.

    Args:
        messages, tools: in OpenAI's format.
        choice: "auto", "none", "required", or the name of the function that has to be called.
        several: a demanded call may be followed by more.
        variables: of the chat template, `chat_template_kwargs`; the texts "true" and "false" are taken for the values.
        effort: OpenAI's `reasoning_effort`; `enable_thinking` in `variables` goes before it.
        budget: most tokens of thoughts; 0 for none, above it the model thinks unless `variables` say otherwise.
        go_on: the answer goes on with the last message, the assistant's.
        begin: begin the model's turn (`add_generation_prompt`).
        ignore_media: put "[image]" and the like in the place of content that is no text, instead of refusing it.

    Raises:
        UsageError: the effort is unknown, or a tool is no function with a name.
    """

    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]] = ()
    choice: str = "auto"
    several: bool = True
    variables: Mapping[str, Any] = field(default_factory=dict)
    effort: str | None = None
    budget: int | None = None
    go_on: bool = False
    begin: bool = True
    ignore_media: bool = False

    def __post_init__(self) -> None:
        if self.effort is not None and self.effort not in _EFFORTS:
            raise UsageError(f"reasoning_effort must be one of {', '.join(_EFFORTS)}, not {given(self.effort)}")
        words = {"true": True, "false": False}
        read = {k: words.get(v.strip().lower(), v) if isinstance(v, str) else v for k, v in self.variables.items()}
        tools = () if self.choice == "none" else self.tools
        object.__setattr__(self, "variables", read)
        object.__setattr__(self, "tools", tuple(_tool(index, tool) for index, tool in enumerate(tools)))

    @property
    def thinks(self) -> bool:
        """Whether the model is asked to think."""
        asked = self.variables.get("enable_thinking")
        if asked is None:
            asked = _EFFORTS.get(self.effort or "") if self.budget is None else self.budget > 0
        return bool(asked)


def _tool(index: int, tool: Any) -> dict[str, Any]:
    function = tool.get("function") if isinstance(tool, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise UsageError(
            f'tools[{index}] must be {{"type": "function", "function": {{"name": ...}}}}, not {given(tool)}'
        )
    return {"type": "function", "function": {name: value for name, value in function.items() if value is not None}}


@dataclass(frozen=True)
class Turn:
    """A turn that can be generated.

    Attributes:
        ids: of the prompt.
        markers: how the answer is read.
    """

    ids: list[int]
    markers: Markers
    _ask: Ask
    _tokenizer: Tokenizer

    def params(self, params: SamplingParams) -> SamplingParams:
        """Sampling parameters, with what the turn needs: its thoughts, its calls, the control tokens they are read by.

        Raises:
            UsageError: a function's parameters nest too deeply, or the grammar cannot be joined with tools.
        """
        ends = self._tokenizer.special_tokens([RESPONSE]) if self.markers.tools else ()
        held = self._held(params.grammar)
        return replace(
            params,
            grammar=held,
            thoughts=self._thoughts(held),
            keep_special=params.keep_special + self.markers.keep_special,
            stop_token_ids=(*params.stop_token_ids, *ends),
        )

    def _thoughts(self, held: Grammar | None) -> Thoughts | None:
        ids = self._tokenizer.control_ids
        if not self.markers.channels or CHANNEL not in ids or CHANNEL_END not in ids:
            return None
        opened, budget = self.markers.thought is not None, self._ask.budget
        if held is not None and not self._ask.thinks and not opened:
            budget = 0  # no thought that nobody asked for comes before a form
        return Thoughts(ids[CHANNEL], ids[CHANNEL_END], opened, budget)

    def _held(self, form: Grammar | None) -> Grammar | None:
        """What the turn is held to: calls if they are demanded, a form if one is asked for, either with both."""
        ask = self._ask
        if ask.choice in ("auto", "none") and (form is None or not ask.tools):
            return form
        functions = [tool["function"] for tool in ask.tools]
        if ask.choice not in ("auto", "required"):
            functions = [function for function in functions if function["name"] == ask.choice]
        form = form if ask.choice == "auto" else None
        several = ask.several and ask.choice in ("auto", "required")
        if self.markers.tools:
            read = [grammar.Function(function["name"], function.get("parameters")) for function in functions]
            held = grammar.grammar_of_calls(read, self._tokenizer, several=several, form=form)
        else:
            held = json_calls.grammar_of_calls([(f["name"], f.get("parameters")) for f in functions], form)
        if held is None:
            raise UsageError("a grammar of this kind and tools exclude each other: leave one out, or use a JSON schema")
        return held


def open_turn(
    template: ChatTemplate, tokenizer: Tokenizer, ask: Ask, check_length: Callable[[str], None] = lambda _: None
) -> Turn:
    """The turn that is asked for.

    Args:
        check_length: raises UsageError for a prompt that is too long to be encoded.

    Raises:
        MessagesError: a message cannot be read, or the template refuses the conversation.
        UnknownToolsError: see `Markers.of`.
    """
    names = [tool["function"]["name"] for tool in ask.tools]
    markers = Markers.of(template.source, names)
    parts = _render(template, tokenizer, ask)
    check_length("".join(parts))
    ids = tokenizer.encode_marked(parts)
    if markers.channels:
        markers = replace(markers, thought=_open_thought(parts))
    return Turn(ids, markers, ask, tokenizer)


def _render(template: ChatTemplate, tokenizer: Tokenizer, ask: Ask) -> list[str]:
    """The prompt's parts, as `ChatTemplate.parts`: of the conversation as it is, or as the template can take it."""
    messages = read_messages(ask.messages, ignore_media=ask.ignore_media)
    tools: list[Mapping[str, Any]] | None = list(ask.tools) or None
    if not knows_tools(template.source):
        messages, tools = without_tools(messages, ask.tools), None
    seam = str(secrets.randbits(128)) if ask.go_on else ""
    if ask.go_on and (not messages or messages[-1]["role"] != "assistant"):
        raise MessagesError("continue_final_message goes on with the assistant's message, and the last one is not")
    variables = {**ask.variables, "enable_thinking": ask.thinks, "reasoning_effort": ask.effort}
    problem: UsageError | None = None
    as_it_is = [] if template.alternates else [messages]
    for tried in (*as_it_is, alternating(messages, system=True), alternating(messages, system=False)):
        try:
            parts = template.parts(
                _marked(tried, seam),
                tokenizer.control_ids,
                tools=tools,
                variables={name: value for name, value in variables.items() if value is not None},
                generation=ask.begin and not ask.go_on,
            )
        except UsageError as error:
            problem = problem or error
            continue
        return _up_to(seam, parts) if seam else parts
    assert problem is not None
    raise MessagesError(str(problem))


def _marked(messages: Sequence[Message], seam: str) -> Sequence[Message]:
    """The messages, with a seam at the end of the last."""
    if not seam:
        return messages
    return [*messages[:-1], {**messages[-1], "content": messages[-1]["content"] + seam}]


def _up_to(seam: str, parts: list[str]) -> list[str]:
    """The parts before the seam."""
    for number, part in enumerate(parts):
        if seam in part:
            return [*parts[:number], part[: part.index(seam)]]
    raise MessagesError("the model's chat template leaves out the message that the answer was to go on with")


def _open_thought(parts: list[str]) -> str | None:
    """The text after the control token that begins a thought, if that is the last one of the prompt."""
    return parts[-1] if len(parts) > 1 and parts[-2] == CHANNEL else None
