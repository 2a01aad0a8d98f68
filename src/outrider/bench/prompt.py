"""A prompt of the benchmark: a text to continue or a conversation to answer, and its token ids."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from outrider.errors import UsageError

if TYPE_CHECKING:
    from outrider import LLM


class Form(StrEnum):
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
class Prompt:
    """One text to continue, or one conversation to answer: either `text` or `messages` is empty.

    Args:
        messages: the last one is the user's.
        further: further turns of the user, each after the model's answer to those before it.
    """

    category: str
    text: str = ""
    messages: tuple[Message, ...] = ()
    further: tuple[str, ...] = ()

    def in_form(self, form: Form) -> Prompt:
        """The same prompt in another format.

        As chat, a text is a user's message. As base, a conversation is a transcript up to the assistant's turn, without
        further turns, because a base model does not end its own.
        """
        if form is Form.chat and self.text:
            return Prompt(self.category, messages=(Message("user", self.text),))
        if form is Form.base and self.messages:
            said = "".join(f"{message.role.capitalize()}: {message.content}\n\n" for message in self.messages)
            return Prompt(self.category, f"{said}Assistant:")
        return self

    def answered(self, answer: str) -> Prompt | None:
        """The prompt of the user's next turn, after the model's answer to this one; None after the last."""
        if not self.further:
            return None
        said = (*self.messages, Message("assistant", answer), Message("user", self.further[0]))
        return Prompt(self.category, messages=said, further=self.further[1:])


def render(prompt: Prompt, llm: LLM) -> list[int]:
    """The token ids: a base prompt's text after a BOS, or a chat prompt in the model's own template.

    Raises:
        UsageError: it is too long for the model's context, or as LLM.chat_prompt.
    """
    if prompt.messages:
        return llm.parts.prompts.conversation([message._asdict() for message in prompt.messages])
    return llm.parts.prompts.encode(prompt.text)


def form_for(llm: LLM, form: Form) -> Form:
    """`base` or `chat`: as requested; for `auto`, `chat` if the model has a chat template.

    Raises:
        UsageError: chat is requested, and the model has no chat template.
    """
    if form is Form.chat and llm.parts.chat is None:
        raise UsageError(f"{llm.path.name} has no chat template, which --form chat needs: leave --form out")
    if form is Form.auto:
        return Form.base if llm.parts.chat is None else Form.chat
    return form
