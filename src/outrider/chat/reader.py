"""Splits a streamed chat answer into content, reasoning and tool calls.

Gemma 4 writes reasoning between the control tokens `<|channel>` and `<channel|>`, after the channel's name ("thought")
and a newline, and tool calls between `<|tool_call>` and `<tool_call|>` (see `calls`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from outrider.chat.calls import Call, parse_call
from outrider.tokenizer.stream import partial_match

CHANNEL, CHANNEL_END = "<|channel>", "<channel|>"
CALL, CALL_END = "<|tool_call>", "<tool_call|>"
RESPONSE = "<|tool_response>"
"""An end token: the model waits for the results of its calls."""
_LABEL = "thought\n"


@dataclass
class Parts:
    """The parts of a piece of an answer; the sum over all pieces is the whole answer."""

    content: str = ""
    reasoning: str = ""
    calls: list[Call] = field(default_factory=list)

    def __add__(self, other: Parts) -> Parts:
        return Parts(self.content + other.content, self.reasoning + other.reasoning, [*self.calls, *other.calls])


class AnswerReader:
    """Reads one answer. The sum of the parts does not depend on how the text is cut into pieces.

    Args:
        channels: read reasoning; without it, its control tokens are content.
        tools: read tool calls; without it, their control tokens are content.
    """

    def __init__(self, *, channels: bool, tools: bool) -> None:
        self._openings = ([CHANNEL] if channels else []) + ([CALL] if tools else [])
        self._inside = ""  # the opening control token of the part being read; "" for content
        self._label = False  # whether the channel's name may follow
        self._held = ""  # text whose part is undecided
        self.calls = 0
        """Calls read so far."""

    def push(self, text: str) -> Parts:
        """The parts that are decided with this text."""
        self._held += text
        parts = Parts()
        while self._advance(parts):
            pass
        return parts

    def flush(self) -> Parts:
        """The rest, at the end of the answer. Unfinished reasoning is reasoning; an unfinished call is content."""
        parts = Parts()
        if self._inside == CHANNEL:
            parts.reasoning = self._held
        else:
            parts.content = self._inside + self._held
        self._held = self._inside = ""
        return parts

    def _advance(self, parts: Parts) -> bool:
        """Read one part; False if more text is needed."""
        if self._inside == CALL:
            return self._read_call(parts)
        if self._inside == CHANNEL:
            return self._read_thought(parts)
        return self._read_content(parts)

    def _read_content(self, parts: Parts) -> bool:
        found = [(at, mark) for mark in self._openings if (at := self._held.find(mark)) >= 0]
        if not found:
            parts.content += self._release(self._openings)
            return False
        at, mark = min(found)
        parts.content += self._held[:at]
        self._held = self._held[at + len(mark) :]
        self._inside, self._label = mark, mark == CHANNEL
        return True

    def _read_thought(self, parts: Parts) -> bool:
        if self._label:
            if len(self._held) < len(_LABEL) and _LABEL.startswith(self._held):
                return False
            self._held = self._held.removeprefix(_LABEL)
            self._label = False
        at = self._held.find(CHANNEL_END)
        if at < 0:
            parts.reasoning += self._release(["\n" + CHANNEL_END, CHANNEL_END])
            return False
        # The chat template adds this newline when the reasoning is sent back.
        parts.reasoning += self._held[:at].removesuffix("\n")
        self._held, self._inside = self._held[at + len(CHANNEL_END) :], ""
        return True

    def _read_call(self, parts: Parts) -> bool:
        at = self._held.find(CALL_END)
        if at < 0:
            return False
        call = parse_call(self._held[:at])
        if call is None:
            parts.content += CALL + self._held[:at] + CALL_END
        else:
            parts.calls.append(call)
            self.calls += 1
        self._held, self._inside = self._held[at + len(CALL_END) :], ""
        return True

    def _release(self, marks: list[str]) -> str:
        """The held text, except an end that may be the beginning of a mark."""
        cut = len(self._held) - partial_match(self._held, marks)
        released, self._held = self._held[:cut], self._held[cut:]
        return released
