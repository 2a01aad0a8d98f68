"""Splits a streamed chat answer into content, reasoning and tool calls.

Gemma 4 writes reasoning between the control tokens `<|channel>` and `<channel|>`, after the channel's name ("thought")
and a newline, and tool calls between `<|tool_call>` and `<tool_call|>` (see `calls`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from outrider.chat.calls import QUOTE, Call, parse_call
from outrider.chat.json_calls import may_be_calls, read_calls
from outrider.tokenizer.stream import partial_match

CHANNEL, CHANNEL_END = "<|channel>", "<channel|>"
CALL, CALL_END = "<|tool_call>", "<tool_call|>"
RESPONSE = "<|tool_response>"
"""An end token: the model waits for the results of its calls."""
_LABEL = "thought\n"
_AFTER_A_MARK = re.compile("(?<=>)")
"""Every control token of the format ends so."""


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

    No control token of the format is content: what is around a part is left out, a stray one too.

    Args:
        channels: read reasoning.
        tools: read tool calls in Gemma 4's format.
        json_calls: names of functions, to read an answer that consists of calls as JSON (see `json_calls`).
        thought: the beginning of a thought, which the prompt ends with; None if it does not end within one.
    """

    def __init__(
        self, *, channels: bool, tools: bool, json_calls: Collection[str] = (), thought: str | None = None
    ) -> None:
        self._marks = ([CHANNEL, CHANNEL_END] if channels else []) + ([CALL, CALL_END, QUOTE] if tools else [])
        self._inside = ""  # the opening control token of the part being read; "" for content
        self._label = False  # whether the channel's name may follow
        self._held = ""  # text whose part is undecided
        self._names, self._json = json_calls, "" if json_calls else None  # content that may be calls; None if it is not
        self.calls = 0
        """Calls read so far."""
        if thought is not None:
            self.push(CHANNEL + thought)

    def push(self, text: str) -> Parts:
        """The parts that are decided with this text."""
        self._held += text
        parts = Parts()
        while self._advance(parts):
            pass
        return self._without_json(parts)

    def push_in_order(self, text: str) -> Iterator[Parts]:
        """As `push`, in as many steps as it takes for each to have one kind of part: their order is the answer's."""
        for segment in _AFTER_A_MARK.split(text):
            yield self.push(segment)

    def flush(self) -> Parts:
        """The rest, at the end of the answer. Unfinished reasoning is reasoning; an unfinished call is content."""
        parts = Parts()
        if self._inside == CHANNEL:
            parts.reasoning = self._held
        else:
            parts.content = self._plain(self._held) if self._inside else self._held
        self._held = self._inside = ""
        parts = self._without_json(parts)
        if self._json:
            parts.calls = read_calls(self._json, self._names)
            parts.content = "" if parts.calls else self._json
            self.calls += len(parts.calls)
        self._json = None
        return parts

    def _advance(self, parts: Parts) -> bool:
        """Read one part; False if more text is needed."""
        if self._inside == CALL:
            return self._read_call(parts)
        if self._inside == CHANNEL:
            return self._read_thought(parts)
        return self._read_content(parts)

    def _read_content(self, parts: Parts) -> bool:
        found = [(at, mark) for mark in self._marks if (at := self._held.find(mark)) >= 0]
        if not found:
            parts.content += self._release(self._marks)
            return False
        at, mark = min(found)
        parts.content += self._held[:at]
        self._held = self._held[at + len(mark) :]
        self._inside, self._label = mark if mark in (CHANNEL, CALL) else "", mark == CHANNEL
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
            parts.content += self._plain(self._held[:at])
        else:
            parts.calls.append(call)
            self.calls += 1
        self._held, self._inside = self._held[at + len(CALL_END) :], ""
        return True

    def _plain(self, text: str) -> str:
        """A malformed call as content: strings in quotation marks, and no control tokens."""
        text = text.replace(QUOTE, '"')
        for mark in self._marks:
            text = text.replace(mark, "")
        return text

    def _without_json(self, parts: Parts) -> Parts:
        """The parts without content that may still turn out to be calls."""
        if self._json is None:
            return parts
        self._json += parts.content
        parts.content = ""
        if not may_be_calls(self._json):
            parts.content, self._json = self._json, None
        return parts

    def _release(self, marks: list[str]) -> str:
        """The held text, except an end that may be the beginning of a mark."""
        cut = len(self._held) - partial_match(self._held, marks)
        released, self._held = self._held[:cut], self._held[cut:]
        return released
