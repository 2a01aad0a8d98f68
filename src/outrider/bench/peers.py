"""Finding the software to measure against."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from outrider.errors import UsageError

if TYPE_CHECKING:
    from outrider import LLM
    from outrider.bench.peer import LlamaCpp


USUAL_CONTEXT = 4096
"""Tokens that a peer makes room for. More only where they are needed: it may compute over the room it has."""


class Peer(StrEnum):
    """Software that can be measured beside outrider."""

    LLAMA_CPP = "llama.cpp"


@contextmanager
def open_peer(peer: Peer | None, python: Path | None, llm: LLM, context: int = 0) -> Iterator[LlamaCpp | None]:
    """The peer with the same file loaded and as many threads; None if none was asked for.

    Args:
        python: a Python that has llama-cpp-python; None for the one that runs this.
        context: tokens that it has to hold.

    Raises:
        UsageError: the peer cannot read this model.
        PeerError: it cannot be started; the message says how to install it.
    """
    if peer is None:
        yield None
        return
    from outrider.bench.peer import LlamaCpp

    if llm.path.suffix != ".gguf":
        raise UsageError(f"--against {peer.value} needs a .gguf file, which {llm.path} is not")
    with LlamaCpp(python or sys.executable, llm.path, llm.threads, context=max(context, USUAL_CONTEXT)) as running:
        yield running
