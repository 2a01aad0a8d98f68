"""The control tokens that Gemma's answers are read by: thoughts and tool calls."""

from __future__ import annotations

from dataclasses import dataclass

from outrider.chat.calls import QUOTE
from outrider.chat.reader import CALL, CALL_END, CHANNEL, CHANNEL_END, RESPONSE, AnswerReader
from outrider.errors import UsageError


class UnknownToolsError(UsageError):
    """The model has not learnt to call functions."""


@dataclass(frozen=True)
class Markers:
    """What an answer may hold besides its content.

    `channels`: thoughts. `tools`: calls of functions.
    """

    channels: bool = False
    tools: bool = False

    @classmethod
    def of(cls, template: str, *, tools: bool) -> Markers:
        """Those of a model, which knows the markers that its chat template mentions.

        Raises:
            UnknownToolsError: functions are given, and the template knows none, or writes calls in another format.
        """
        if tools and (CALL not in template or "tools" not in template):
            raise UnknownToolsError(
                "the model's chat template does not know tools as Gemma 4's does: describe them in the messages"
            )
        return cls(CHANNEL in template, tools)

    @property
    def keep_special(self) -> tuple[str, ...]:
        """See `SamplingParams.keep_special`."""
        channels = (CHANNEL, CHANNEL_END) if self.channels else ()
        return (*channels, CALL, CALL_END, QUOTE, RESPONSE) if self.tools else channels

    @property
    def last_mark(self) -> str | None:
        """What ends the turn besides the end tokens."""
        return RESPONSE if self.tools else None

    def reader(self) -> AnswerReader:
        """Reads one answer."""
        return AnswerReader(channels=self.channels, tools=self.tools)
