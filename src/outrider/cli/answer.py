"""One answer: text as it comes, why it ended, and the figures under it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.table import Table

from outrider.cli.prefill import showing_prefill
from outrider.cli.request import Request
from outrider.cli.screen import AnswerText, DraftColours
from outrider.console import error_console

if TYPE_CHECKING:
    from outrider import LLM, SamplingParams
    from outrider.engine.outputs import FinishReason, Piece, RequestStats


@dataclass(frozen=True)
class Answer:
    """What was shown: `text` without thoughts. `finish_reason` and `stats` are None if it was stopped before its
    end."""

    text: str
    tokens: int
    finish_reason: FinishReason | None
    stats: RequestStats | None
    coloured: bool


def stream_answer(
    llm: LLM,
    request: Request,
    *,
    show_drafts: bool = False,
    stopped: Callable[[], bool] = lambda: False,
) -> Answer:
    """Prints the answer to standard output as it comes, a newline after it. Thoughts are shown on a terminal only.

    Args:
        stopped: asked after every piece; True ends the answer there.

    Raises:
        OutriderError: as LLM.stream does; nothing was printed then.
    """
    reader = request.markers.reader()
    terminal = sys.stdout.isatty()
    coloured = show_drafts and terminal and "NO_COLOR" not in os.environ
    colours = DraftColours(llm.tokenizer, request.markers.keep_special) if coloured else None
    screen = AnswerText(colours) if terminal else None
    text, count = "", 0
    last: Piece | None = None

    def show(reasoning: str, content: str) -> str:
        sys.stdout.write(screen.render(reasoning, content) if screen else content)
        sys.stdout.flush()
        return content

    # Closing the iterator cancels the request, whatever ends the loop.
    with closing(llm.stream(request.prompt, request.params)) as stream, closing(showing_prefill(stream)) as pieces:
        for piece in pieces:
            count, last = count + len(piece.token_ids), piece
            if colours is not None:
                colours.push(piece)
            parts = reader.push(piece.text)
            text += show(parts.reasoning, parts.content)
            if stopped():
                break
    parts = reader.flush()
    text += show(parts.reasoning, parts.content)
    sys.stdout.write(screen.flush() if screen else "")
    sys.stdout.write("" if text.endswith("\n") else "\n")
    sys.stdout.flush()
    return Answer(text, count, last.finish_reason if last else None, last.stats if last else None, coloured)


def limit_reached(answer: Answer, params: SamplingParams, context: int) -> str | None:
    """Which limit ended the answer; None if it ended by itself or was stopped."""
    if answer.finish_reason != "length":
        return None
    if answer.tokens >= params.max_tokens:
        return f"stopped at --max-tokens {params.max_tokens}"
    return f"stopped at the end of the context, {context} tokens"


def note(text: str) -> None:
    """A dim line on standard error."""
    console = error_console()
    console.print(text, style="dim", markup=False, soft_wrap=not console.is_terminal)


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
