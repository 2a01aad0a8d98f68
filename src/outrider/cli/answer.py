"""An answer on the terminal: text as it comes, drafted tokens in colour, and the figures under it."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from rich.table import Table

from outrider.console import error_console

if TYPE_CHECKING:
    from outrider import LLM, SamplingParams
    from outrider.engine.outputs import Piece, RequestStats
    from outrider.tokenizer import Tokenizer

_ACCEPTED, _CORRECTED, _PLAIN = "\033[32m", "\033[33m", "\033[0m"


@dataclass(frozen=True)
class Answer:
    """What was shown. `stats` is None if the answer was stopped before its end."""

    text: str
    tokens: int
    stats: RequestStats | None
    coloured: bool


class DraftColours:
    """Says which characters of streamed text came from accepted drafts, and which in the place of a rejected one.

    Pieces hold the text of several tokens, and an end that may yet become a stop text is held back; so every token's
    characters queue up here until the text that has them is shown.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        from outrider.tokenizer import StreamDecoder

        self._decoder = StreamDecoder(tokenizer)
        self._colours: deque[str] = deque()

    def push(self, piece: Piece) -> None:
        """The tokens of the next piece."""
        for token, drafted, rejected in zip(piece.token_ids, piece.drafted, piece.rejected, strict=True):
            colour = _ACCEPTED if drafted else _CORRECTED if rejected is not None else ""
            self._colours.extend([colour] * len(self._decoder.push(token)))

    def paint(self, text: str) -> str:
        """The next text to show, with terminal colours."""
        coloured = [(self._colours.popleft() if self._colours else "", character) for character in text]
        runs = ((colour, "".join(c for _, c in run)) for colour, run in groupby(coloured, key=lambda pair: pair[0]))
        return "".join(f"{colour}{harmless(run)}{_PLAIN}" if colour else harmless(run) for colour, run in runs)


def harmless(text: str) -> str:
    """Text as a terminal may get it: a model's output must not move the cursor or retitle the window."""
    return "".join(c if c.isprintable() or c in "\n\t" or ord(c) > 0x9F else f"\\x{ord(c):02x}" for c in text)


def stream_answer(
    llm: LLM,
    prompt: str | list[int],
    params: SamplingParams,
    *,
    show_drafts: bool = False,
    stopped: Callable[[], bool] = lambda: False,
) -> Answer:
    """Prints the answer to standard output as it comes, a newline after it.

    Args:
        stopped: asked after every piece; True ends the answer there.

    Raises:
        OutriderError: as LLM.stream does; nothing was printed then.
    """
    terminal = sys.stdout.isatty()
    coloured = show_drafts and terminal and "NO_COLOR" not in os.environ
    colours = DraftColours(llm.tokenizer) if coloured else None
    shown, count, stats = [], 0, None
    # Closing the iterator cancels the request, whatever ends the loop.
    with closing(llm.stream(prompt, params)) as pieces:  # type: ignore[type-var]
        for piece in pieces:
            shown.append(piece.text)
            count += len(piece.token_ids)
            stats = piece.stats
            if colours is not None:
                colours.push(piece)
                sys.stdout.write(colours.paint(piece.text))
            else:
                sys.stdout.write(harmless(piece.text) if terminal else piece.text)
            sys.stdout.flush()
            if stopped():
                break
    text = "".join(shown)
    if not text.endswith("\n"):
        sys.stdout.write("\n")
    sys.stdout.flush()
    return Answer(text, count, stats, coloured)


def print_figures(answer: Answer) -> None:
    """A small table on standard error."""
    stats = answer.stats
    if stats is None:
        return
    computed = stats.prompt_tokens - stats.reused_tokens
    prefill = computed / stats.prefill_seconds if stats.prefill_seconds else 0.0
    reused = f" ({stats.reused_tokens} reused)" if stats.reused_tokens else ""
    drafts = f"{stats.accepted} of {stats.drafted} accepted ({stats.acceptance_rate:.0%})" if stats.drafted else "none"
    sources = ", ".join(name for name, count in stats.drafted_by_source.items() if count)
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(style="dim")
    table.add_row("prefill", f"{stats.prompt_tokens} tokens{reused}, {prefill:.0f} tok/s")
    table.add_row("decode", f"{answer.tokens} tokens, {stats.decode_tokens_per_second:.1f} tok/s")
    table.add_row("passes", f"{stats.target_passes}, {stats.tokens_per_pass:.2f} tokens per pass")
    table.add_row("drafts", drafts + (f" from {sources}" if sources else ""))
    console = error_console()
    console.print()
    console.print(table)
    if answer.coloured and stats.drafted:
        console.print("green: drafted, and accepted by the model", style="green dim")
        console.print("yellow: the model's own, where something else was drafted", style="yellow dim")
