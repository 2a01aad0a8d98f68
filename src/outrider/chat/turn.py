"""The model's next turn: the prompt that leads to it, how it is generated, and how it is read."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from outrider.chat import grammar, json_calls
from outrider.chat.calls import NAME
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
class TurnRequest:
    """What is asked of a conversation, in the words of OpenAI's API.

    Args:
        messages, tools: in OpenAI's format.
        tool_choice: "auto", "none" or "required". function: the name of the one that has to be called.
        parallel_tool_calls: a demanded call may be followed by more.
        template_kwargs: variables of the chat template; the texts "true" and "false" are taken for the values.
        reasoning_effort: "none" and "minimal" do not think; `enable_thinking` in `template_kwargs` goes before it.
        thinking_budget: most tokens of thoughts; 0 for none, above it the model thinks unless `template_kwargs` say
            otherwise.
        continue_final_message: the answer goes on with the last message, the assistant's.
        add_generation_prompt: begin the model's turn.
        ignore_media: put "[image]" and the like in the place of content that is no text, instead of refusing it.

    Raises:
        UsageError: the effort is unknown, or a tool is no function with a name.
    """

    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]] = ()
    tool_choice: Literal["auto", "none", "required"] = "auto"
    function: str | None = None
    parallel_tool_calls: bool = True
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    reasoning_effort: str | None = None
    thinking_budget: int | None = None
    continue_final_message: bool = False
    add_generation_prompt: bool = True
    ignore_media: bool = False

    def __post_init__(self) -> None:
        if self.reasoning_effort is not None and self.reasoning_effort not in _EFFORTS:
            raise UsageError(
                f"reasoning_effort must be one of {', '.join(_EFFORTS)}, not {given(self.reasoning_effort)}"
            )
        words = {"true": True, "false": False}
        read = {
            k: words.get(v.strip().lower(), v) if isinstance(v, str) else v for k, v in self.template_kwargs.items()
        }
        tools = () if self.tool_choice == "none" else self.tools
        object.__setattr__(self, "template_kwargs", read)
        object.__setattr__(self, "tools", tuple(_tool(index, tool) for index, tool in enumerate(tools)))

    @property
    def thinks(self) -> bool:
        """Whether the model is asked to think."""
        asked, budget = self.template_kwargs.get("enable_thinking"), self.thinking_budget
        if asked is None:
            asked = _EFFORTS.get(self.reasoning_effort or "") if budget is None else budget > 0
        return bool(asked)


def _tool(index: int, tool: Any) -> dict[str, Any]:
    function = tool.get("function") if isinstance(tool, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise UsageError(
            f'tools[{index}] must be {{"type": "function", "function": {{"name": ...}}}}, not {given(tool)}'
        )
    if not NAME.fullmatch(function["name"]):
        problem = f"tools[{index}] has the name {given(function['name'])}, which no call can be read with"
        raise UsageError(f"{problem}: use letters, digits, dots, - and _")
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
    _request: TurnRequest
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
        opened, budget = self.markers.thought is not None, self._request.thinking_budget
        if held is not None and not self._request.thinks and not opened:
            budget = 0  # no thought that nobody asked for comes before a form
        return Thoughts(ids[CHANNEL], ids[CHANNEL_END], opened, budget)

    def _held(self, form: Grammar | None) -> Grammar | None:
        """What the turn is held to: calls if they are demanded, a form if one is asked for, either with both."""
        request, chosen = self._request, self._request.function
        demanded = chosen is not None or request.tool_choice == "required"
        if not demanded and (form is None or not request.tools):
            return form
        functions = [tool["function"] for tool in request.tools]
        functions = [function for function in functions if chosen in (None, function["name"])]
        form = None if demanded else form
        several = request.parallel_tool_calls and chosen is None
        if self.markers.tools:
            read = [grammar.Function(function["name"], function.get("parameters")) for function in functions]
            held = grammar.grammar_of_calls(read, self._tokenizer, several=several, form=form)
        else:
            held = json_calls.grammar_of_calls([(f["name"], f.get("parameters")) for f in functions], form)
        if held is None:
            raise UsageError("a grammar of this kind and tools exclude each other: leave one out, or use a JSON schema")
        return held


def open_turn(
    template: ChatTemplate,
    tokenizer: Tokenizer,
    request: TurnRequest,
    check_length: Callable[[str], None] = lambda _: None,
) -> Turn:
    """The turn that is asked for.

    Args:
        check_length: raises UsageError for a prompt that is too long to be encoded.

    Raises:
        MessagesError: a message cannot be read, or the template refuses the conversation.
        UnknownToolsError: see `Markers.of`.
    """
    names = [tool["function"]["name"] for tool in request.tools]
    markers = Markers.of(template.source, names)
    parts = _render(template, tokenizer, request)
    check_length("".join(parts))
    ids = tokenizer.encode_marked(parts)
    if markers.channels:
        markers = replace(markers, thought=_open_thought(parts))
    return Turn(ids, markers, request, tokenizer)


def _render(template: ChatTemplate, tokenizer: Tokenizer, request: TurnRequest) -> list[str]:
    """The prompt's parts, as `ChatTemplate.parts`: of the conversation as it is, or as the template can take it."""
    messages = read_messages(request.messages, ignore_media=request.ignore_media)
    tools: list[Mapping[str, Any]] | None = list(request.tools) or None
    if not knows_tools(template.source):
        messages, tools = without_tools(messages, request.tools), None
    seam = str(secrets.randbits(128)) if request.continue_final_message else ""
    if request.continue_final_message and (not messages or messages[-1]["role"] != "assistant"):
        raise MessagesError("continue_final_message goes on with the assistant's message, and the last one is not")
    variables = {**request.template_kwargs, "enable_thinking": request.thinks}
    if request.reasoning_effort is not None:
        variables["reasoning_effort"] = request.reasoning_effort
    problem: UsageError | None = None
    as_it_is = [] if template.alternates else [messages]
    for tried in (*as_it_is, alternating(messages, system=True), alternating(messages, system=False)):
        try:
            parts = template.parts(
                _marked(tried, seam),
                tokenizer.control_ids,
                tools=tools,
                variables=variables,
                generation=request.add_generation_prompt and not request.continue_final_message,
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
