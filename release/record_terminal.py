"""Records what a command prints on a terminal as an asciicast (version 2), as it comes and as fast as it comes:

python release/record_terminal.py OUT.cast COMMAND...

Reference: https://docs.asciinema.org/manual/asciicast/v2/
"""

from __future__ import annotations

import json
import os
import pty
import shlex
import subprocess
import sys
import termios
import time
from codecs import getincrementaldecoder
from collections.abc import Iterator
from pathlib import Path

COLUMNS, ROWS = 80, 19
HELD_SECONDS = 6
"""How long the end stays, in a picture that begins again."""


def output(command: list[str]) -> Iterator[tuple[float, str]]:
    """Seconds since the start, and the text that came then."""
    terminal, side = pty.openpty()
    termios.tcsetwinsize(side, (ROWS, COLUMNS))
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | {"TERM": "xterm-256color"}
    decoder, began = getincrementaldecoder("utf-8")(), time.monotonic()
    with subprocess.Popen(command, stdin=side, stdout=side, stderr=side, env=environment) as process:
        os.close(side)
        while True:
            try:
                data = os.read(terminal, 4096)
            except OSError:  # so Linux reports the end of a terminal
                break
            if not data:
                break
            yield time.monotonic() - began, decoder.decode(data)
    os.close(terminal)
    if process.returncode:
        sys.exit(
            f"{shlex.join(command)} failed with exit code {process.returncode}: see its error above, and mend that"
        )


def record(file: Path, command: list[str]) -> None:
    """Writes the recording: the command as it would be typed, and what it printed."""
    shown = shlex.join([Path(command[0]).name, *command[1:]])
    events = [(0.0, f"$ {shown}\r\n"), *output(command)]
    events.append((events[-1][0] + HELD_SECONDS, ""))
    lines = [{"version": 2, "width": COLUMNS, "height": ROWS}, *([seconds, "o", text] for seconds, text in events)]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    record(Path(sys.argv[1]), sys.argv[2:])
