"""What an answer may hold besides its content, by the model's chat template: thoughts and tool calls."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from outrider.chat.calls import QUOTE
from outrider.chat.reader import CALL, CALL_END, CHANNEL, CHANNEL_END, AnswerReader
from outrider.errors import UsageError


class UnknownToolsError(UsageError):
    """The model calls functions in a format that is not known."""


@dataclass(frozen=True)
class Markers:
    """How an answer is read.

    Attributes: `channels`: thoughts. `tools`: calls of functions in Gemma 4's format. `json_calls`: the names of
    functions that are called in JSON. `thought`: the beginning of a thought that the prompt ends with, or None.
    """

    channels: bool = False
    tools: bool = False
    json_calls: frozenset[str] = frozenset()
    thought: str | None = None

    @classmethod
    def of(cls, template: str, names: Collection[str]) -> Markers:
        """Those of a model, which knows the control tokens that its chat template mentions.

        Args:
            names: the functions' that the model may call.

        Raises:
            UnknownToolsError: functions are given, and the template describes them in a format that is not known.
        """
        if not names or not knows_tools(template):
            return cls(CHANNEL in template, json_calls=frozenset(names))
        if CALL not in template:
            raise UnknownToolsError(
                "the model's chat template writes tools in another format than Gemma 4's: describe them in the messages"
            )
        return cls(CHANNEL in template, tools=True)

    @property
    def keep_special(self) -> tuple[str, ...]:
        """See `SamplingParams.keep_special`."""
        return ((CHANNEL, CHANNEL_END) if self.channels else ()) + ((CALL, CALL_END, QUOTE) if self.tools else ())

    def reader(self) -> AnswerReader:
        """Reads one answer."""
        return AnswerReader(channels=self.channels, tools=self.tools, json_calls=self.json_calls, thought=self.thought)


def knows_tools(template: str) -> bool:
    """Whether a template shows tools, calls and results by itself."""
    return "tools" in template
