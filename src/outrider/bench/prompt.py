"""A prompt of the benchmark: a text to continue or a conversation to answer, and its token ids."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from outrider.errors import UsageError

if TYPE_CHECKING:
    from outrider import LLM


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
class Prompt:
    """One text to continue, or one conversation to answer: either `text` or `messages` is empty.

    Args:
        messages: the last one is the user's.
        further: the user's later turns, each after the model's answer to those before it.
    """

    category: str
    text: str = ""
    messages: tuple[Message, ...] = ()
    further: tuple[str, ...] = ()

    def in_format(self, prompt_format: PromptFormat) -> Prompt:
        """The same prompt in another format.

        As chat, a text is a user's message. As base, a conversation is a transcript up to the assistant's turn, without
        later turns, because a base model does not end its own.
        """
        if prompt_format is PromptFormat.chat and self.text:
            return Prompt(self.category, messages=(Message("user", self.text),))
        if prompt_format is PromptFormat.base and self.messages:
            transcript = "".join(f"{message.role.capitalize()}: {message.content}\n\n" for message in self.messages)
            return Prompt(self.category, f"{transcript}Assistant:")
        return self

    def answered(self, answer: str) -> Prompt | None:
        """The prompt of the user's next turn, after the model's answer to this one; None after the last."""
        if not self.further:
            return None
        messages = (*self.messages, Message("assistant", answer), Message("user", self.further[0]))
        return Prompt(self.category, messages=messages, further=self.further[1:])


def render(prompt: Prompt, llm: LLM) -> list[int]:
    """The token ids: a base prompt's text after a BOS, or a chat prompt in the model's own template.

    Raises:
        UsageError: it is too long for the model's context, or as LLM.chat_prompt.
    """
    if prompt.messages:
        return llm.parts.prompts.conversation([message._asdict() for message in prompt.messages])
    return llm.parts.prompts.encode(prompt.text)


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
