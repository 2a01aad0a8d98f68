"""A prompt of the benchmark: a text to go on from or a conversation to answer, and how a model is given it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from outrider.errors import UsageError

if TYPE_CHECKING:
    from outrider import LLM


class Form(StrEnum):
    """How a model is asked: with a text to go on from, or with messages to answer."""

    auto = "auto"
    base = "base"
    chat = "chat"


class Message(NamedTuple):
    """What one side of a conversation said."""

    role: str
    """"system", "user" or "assistant"."""
    content: str


@dataclass(frozen=True)
class Prompt:
    """One text to go on from, or one conversation to answer: either `text` or `messages` is empty.

    Args:
        messages: the user has the last word.
        further: what the user says next, each after the model's answer to what stands before it.
    """

    category: str
    text: str = ""
    messages: tuple[Message, ...] = ()
    further: tuple[str, ...] = ()

    def in_form(self, form: Form) -> Prompt:
        """The same prompt for the other kind of model.

        As chat, a text is the message of a user. As base, a conversation is written down with its speakers' names, the
        assistant's turn beginning; it has no further turns, because a base model does not say where its own ends.
        """
        if form is Form.chat and self.text:
            return Prompt(self.category, messages=(Message("user", self.text),))
        if form is Form.base and self.messages:
            said = "".join(f"{message.role.capitalize()}: {message.content}\n\n" for message in self.messages)
            return Prompt(self.category, f"{said}Assistant:")
        return self

    def answered(self, answer: str) -> Prompt | None:
        """The user's next turn, after the model's answer to this one; None after the last."""
        if not self.further:
            return None
        said = (*self.messages, Message("assistant", answer), Message("user", self.further[0]))
        return Prompt(self.category, messages=said, further=self.further[1:])


def render(prompt: Prompt, llm: LLM) -> list[int]:
    """The ids that the model is given: a base prompt's text after a BOS, or a chat prompt in the model's own template.

    Raises:
        UsageError: it is too long for the model's context, or as LLM.chat_prompt.
    """
    if prompt.messages:
        return llm.chat_prompt([message._asdict() for message in prompt.messages])
    return llm.encode(prompt.text)


def form_for(llm: LLM, form: Form) -> Form:
    """`base` or `chat`: what was asked for, or what the model is. One with a chat template was trained to answer.

    Raises:
        UsageError: chat is asked for, and the model has no chat template.
    """
    if form is Form.chat and llm.parts.chat is None:
        raise UsageError(f"{llm.path.name} has no chat template, which --form chat needs: leave --form out")
    if form is Form.auto:
        return Form.base if llm.parts.chat is None else Form.chat
    return form
