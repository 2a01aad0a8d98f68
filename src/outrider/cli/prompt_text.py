"""The prompt of `outrider run`: from the command line, from what is piped in, or both."""

from __future__ import annotations

import sys
from threading import Timer

from outrider.errors import UsageError

_MOST_BYTES = 1 << 25
_PATIENCE_SECONDS = 2.0


def prompt_text(prompt: str | None, *, session: bool) -> str | None:
    """The prompt, a blank line, and the piped text, or the one of the two that there is; None for a session.

    Args:
        prompt: from the command line; "-" is a prompt that is typed or piped in.
        session: whether there can be one, where standard input and output are a terminal.

    Raises:
        UsageError: there is no prompt and no terminal to hold a session in; it is empty, binary, or too large.
    """
    if prompt is None and sys.stdin.isatty():
        if session and sys.stdout.isatty():
            return None
        raise UsageError(
            f"{'output that is not a terminal' if session else '--json'} needs a PROMPT: give one, or pipe it in"
        )
    given = "" if prompt in (None, "-") else _valid(prompt)
    piped = "" if prompt != "-" and sys.stdin.isatty() else _piped_text()
    if not given and not piped:
        raise UsageError("the prompt is empty: write one, or pipe it in")
    return "\n\n".join(part for part in (given, piped) if part)


def _valid(prompt: str) -> str:
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise UsageError("PROMPT is not UTF-8 text: pass it on standard input, converted with iconv") from error
    return prompt


def _piped_text() -> str:
    """Standard input. As in a shell's $(...), the newline that ends it is not part of it."""
    from outrider.cli.answer import note

    waiting = Timer(_PATIENCE_SECONDS, note, ["reading standard input (</dev/null if nothing comes from there)"])
    waiting.daemon = True
    waiting.start()
    try:
        data = sys.stdin.buffer.read(_MOST_BYTES + 1)
    finally:
        waiting.cancel()
    if b"\0" in data:
        raise UsageError(f"standard input is binary (a zero byte at {data.index(0)}): pipe in text")
    if len(data) > _MOST_BYTES:
        raise UsageError(f"standard input is larger than {_MOST_BYTES >> 20} MiB, which fits into no context")
    try:
        return data.decode().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise UsageError(f"standard input is not UTF-8 text (byte {error.start}): convert it with iconv") from error
