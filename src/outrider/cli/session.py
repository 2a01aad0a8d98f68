"""A conversation: what was said, the settings of the next answer, and how it is answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from outrider.cli.answer import Answer, limit_reached, note, stream_answer
from outrider.cli.kept import KeptConversation
from outrider.cli.keyboard import interrupts, unechoed
from outrider.cli.messages import Message
from outrider.cli.request import request_of
from outrider.errors import UsageError

if TYPE_CHECKING:
    from outrider import LLM, SamplingParams


@dataclass
class Session:
    """A conversation with a chat model, or a text that a base model continues.

    `messages` are the turns after the system text. A base model knows no turns: it continues all of them as one text.
    `kept` is where `save` writes it.
    """

    llm: LLM
    params: SamplingParams
    system: str = ""
    thinking: bool = False
    show_drafts: bool = False
    messages: list[Message] = field(default_factory=list)
    last: Answer | None = None
    kept: KeptConversation | None = None

    @property
    def chat(self) -> bool:
        """Whether the model has a chat template."""
        return self.llm.parts.chat is not None

    @property
    def transcript(self) -> list[Message]:
        """The system text and all turns."""
        return self._with_system(self.messages)

    def say(self, text: str) -> None:
        """Answers the next message. An empty one is nothing to a chat model, and lets a base model continue.

        Raises:
            OutriderError: as LLM.stream does; the conversation is as before then.
        """
        if text.strip() or (not self.chat and self.messages):
            self._answer([*self.messages, Message(role="user", content=text)])

    def retry(self) -> None:
        """Answers the last message again, with the next seed. Raises as `say`, and where nothing was said."""
        turns = self.messages
        if turns and turns[-1]["role"] == "assistant":
            turns = turns[:-1]
        if not turns:
            raise UsageError("nothing to answer again")
        if self.params.greedy:
            note("greedy: the same answer again; /set temperature 0.7 for another")
        else:
            self.params = replace(self.params, seed=(self.params.seed + 1) % 2**64)
        self._answer(turns)

    def save(self) -> None:
        """Keeps the conversation as it is now, if it is one that is kept. Raises UsageError if that fails."""
        if self.kept is not None:
            self.kept.write(self.transcript)

    def _answer(self, turns: list[Message]) -> None:
        request = request_of(self.llm, self._with_system(turns), self.params, thinking=self.thinking)
        try:
            with interrupts() as stopped, unechoed():
                answer = stream_answer(self.llm, request, show_drafts=self.show_drafts, stopped=stopped)
        except KeyboardInterrupt:
            note("\n(stopped at once: the conversation is as before)")
            return
        self.last = answer
        if answer.text or answer.finish_reason is not None:
            self.messages = [*turns, Message(role="assistant", content=answer.text)]
        if answer.finish_reason is None:
            note("(stopped)")
        elif limit := limit_reached(answer, self.params, self.llm.context):
            note(f"{limit} ({'/set max_tokens N' if self.chat else 'an empty line continues'})")

    def _with_system(self, turns: Sequence[Message]) -> list[Message]:
        return [*([Message(role="system", content=self.system)] if self.system else []), *turns]
