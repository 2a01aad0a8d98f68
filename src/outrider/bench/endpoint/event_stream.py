"""Reading server-sent events from bytes as they come.

Not by `httpx`'s lines: those end wherever Python's `str.splitlines` ends one, at U+2028 or U+0085 too, and these may
stand unescaped in the JSON of an event.
"""

from __future__ import annotations

import re

_LINE_END = re.compile(rb"\r\n|\n|\r")

DONE = "[DONE]"
"""The data of the event with which OpenAI's streams end."""


class EventStream:
    """Takes a stream's bytes in any pieces, and gives the data of every whole event."""

    def __init__(self) -> None:
        self._rest = b""  # a line that has not ended
        self._after_return = False  # whether the last byte was "\r"
        self._data: list[bytes] = []  # the data lines of an event that has not ended

    def push(self, part: bytes) -> list[str]:
        """The data of the events that end in this part; what is no UTF-8 becomes U+FFFD.

        Only whole lines are decoded, so a character may be cut where it likes. Comments (keep-alives) and the fields
        other than `data` are passed over, as the standard says.
        """
        if self._after_return:  # the second half of a "\r\n" that was cut in two
            part, self._after_return = part.removeprefix(b"\n"), not part
        self._after_return = self._after_return or part.endswith(b"\r")
        *lines, self._rest = _LINE_END.split(self._rest + part)
        return [event for line in lines if (event := self._line(line)) is not None]

    def _line(self, line: bytes) -> str | None:
        if line:
            name, _, value = line.partition(b":")
            if name == b"data":
                self._data.append(value.removeprefix(b" "))
            return None
        if not self._data:
            return None
        event = b"\n".join(self._data).decode("utf-8", "replace")
        self._data.clear()
        return event
