"""A prompt of the benchmark: a text to continue or a conversation to answer, and what it requires of the answer."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from outrider.chat import json_calls
from outrider.chat.markers import Markers
from outrider.chat.turn import Turn, TurnRequest
from outrider.errors import UsageError
from outrider.sampling.grammar import Grammar

if TYPE_CHECKING:
    from outrider import LLM, SamplingParams


class PromptFormat(StrEnum):
    """The prompt format: text to continue, or chat messages to answer."""

    auto = "auto"
    base = "base"
    chat = "chat"


class Message(NamedTuple):
    """One message of a conversation."""

    role: str
    """"system", "user" or "assistant"."""
    content: str


@dataclass(frozen=True)
class Tools:
    """Functions that the model may call, and whether it has to.

    Args:
        text: OpenAI's `tools`, as JSON, because prompts are hashed.
        tool_choice, function: as in `TurnRequest`.
    """

    text: str
    tool_choice: Literal["auto", "none", "required"] = "auto"
    function: str | None = None

    @property
    def listed(self) -> list[dict[str, Any]]:
        """OpenAI's `tools`."""
        return list(json.loads(self.text))


@dataclass(frozen=True)
class Prompt:
    """One text to continue, or one conversation to answer: either `text` or `messages` is empty.

    Args:
        messages: the last one is the user's.
        further: the user's later turns, each after the model's answer to those before it.
        grammar, prediction, stop: of the answer, as in `SamplingParams`.
    """

    category: str
    text: str = ""
    messages: tuple[Message, ...] = ()
    further: tuple[str, ...] = ()
    grammar: Grammar | None = None
    tools: Tools | None = None
    prediction: str = ""
    stop: tuple[str, ...] = ()

    def in_format(self, prompt_format: PromptFormat) -> Prompt:
        """The same prompt in another format.

        As chat, a text is a user's message. As base, a conversation is a transcript up to the assistant's turn, without
        later turns, because a base model does not end its own.
        """
        if prompt_format is PromptFormat.chat and self.text:
            return replace(self, text="", messages=(Message("user", self.text),))
        if prompt_format is PromptFormat.base and self.messages:
            transcript = "".join(f"{message.role.capitalize()}: {message.content}\n\n" for message in self.messages)
            return replace(self, text=f"{transcript}Assistant:", messages=(), further=())
        return self

    def answered(self, answer: str) -> Prompt | None:
        """The prompt of the user's next turn, after the model's answer to this one; None after the last."""
        if not self.further:
            return None
        messages = (*self.messages, Message("assistant", answer), Message("user", self.further[0]))
        return replace(self, messages=messages, further=self.further[1:])


def render(prompt: Prompt, llm: LLM, sampling: SamplingParams) -> tuple[list[int], SamplingParams]:
    """The token ids, and the sampling parameters with what the prompt adds to them.

    The ids are a base prompt's text after a BOS, or a chat prompt in the model's own template. A base model reads of
    its tools before the text, and calls them in JSON.

    Raises:
        UsageError: it is too long for the model's context, or as LLM.chat; the grammar cannot be used.
    """
    prompts, tools = llm.parts.prompts, prompt.tools
    params = replace(sampling, grammar=prompt.grammar, prediction=prompt.prediction, stop=prompt.stop)
    messages = [of._asdict() for of in prompt.messages]
    request = TurnRequest(messages)
    if tools is not None:
        request = TurnRequest(messages, tools.listed, tools.tool_choice, tools.function)
    if prompt.messages:
        turn = prompts.turn(request)
    else:
        introduction = f"{json_calls.described(request.tools)}\n\n" if request.tools else ""
        names = frozenset(tool["function"]["name"] for tool in request.tools)
        ids = prompts.encode(introduction + prompt.text)
        turn = Turn(ids, Markers(json_calls=names), request, llm.tokenizer)
    held = prompt.grammar is not None or tools is not None
    params = turn.params(params) if held else params
    prompts.check(params)
    return turn.ids, params


def format_for(llm: LLM, prompt_format: PromptFormat) -> PromptFormat:
    """`base` or `chat`: as requested; for `auto`, `chat` if the model has a chat template.

    Raises:
        UsageError: chat is requested, and the model has no chat template.
    """
    if prompt_format is PromptFormat.chat and llm.parts.chat is None:
        raise UsageError(f"{llm.path.name} has no chat template, which --prompt-format chat needs: leave that out")
    if prompt_format is PromptFormat.auto:
        return PromptFormat.base if llm.parts.chat is None else PromptFormat.chat
    return prompt_format
