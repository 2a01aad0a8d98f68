"""The progress of a long prompt."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable
from contextlib import ExitStack
from typing import TYPE_CHECKING

from outrider.progress import progress_bar

if TYPE_CHECKING:
    from outrider.engine.outputs import Piece

_SHOWN_AFTER_SECONDS = 2.0


def showing_prefill(pieces: Iterable[Piece]) -> Generator[Piece, None, None]:
    """The pieces of an answer, with a bar on a terminal while the prompt is computed, if that takes long."""
    began = time.monotonic()
    with ExitStack() as shown:
        bar = None
        for piece in pieces:
            if piece.token_ids:
                shown.close()
            elif bar is None and time.monotonic() - began >= _SHOWN_AFTER_SECONDS:
                bar = shown.enter_context(progress_bar())
                task = bar.add_task("prefill", total=1.0)
            if bar is not None:
                bar.update(task, completed=piece.prefilled)
            yield piece
