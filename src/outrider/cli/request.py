"""What a command asks the model: the prompt of a conversation, or of a text, and how the answer is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from outrider.cli.messages import Message

if TYPE_CHECKING:
    from outrider import LLM, SamplingParams
    from outrider.chat.markers import Markers


@dataclass(frozen=True)
class Request:
    """A prompt, sampling parameters, and the control tokens that the answer is read by."""

    prompt: str | list[int]
    params: SamplingParams
    markers: Markers


def request_of(llm: LLM, messages: Sequence[Message], params: SamplingParams, *, thinking: bool) -> Request:
    """The next turn of a chat model, or the continuation of all messages as one text by a base model.

    Raises:
        UsageError: as `Prompts.turn`.
    """
    from outrider.chat.markers import Markers
    from outrider.chat.turn import TurnRequest

    if llm.parts.chat is None:
        return Request(one_text(messages), params, Markers())
    turn = llm.parts.prompts.turn(TurnRequest(messages, template_kwargs={"enable_thinking": thinking}))
    return Request(turn.ids, turn.params(params), turn.markers)


def one_text(messages: Sequence[Message]) -> str:
    """What was typed begins on a line of its own; an answer continues it."""
    text = ""
    for message in messages:
        begins_line = message["role"] == "user" and message["content"] and text and not text.endswith("\n")
        text += ("\n" if begins_line else "") + message["content"]
    return text
