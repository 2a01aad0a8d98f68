"""Writing a file so that it is complete or absent, whatever happens to the process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4


@contextmanager
def replacing(path: Path, *, locked: bool = False) -> Iterator[Path]:
    """The path of a partial file beside `path`: it becomes `path` when the block ends, and is removed if it raises.

    Args:
        locked: there is only one writer at a time. All writers then use one partial file, so that what a killed process
            left is overwritten.
    """
    partial = path.with_name(f"{path.name}.partial" if locked else f"{path.name}.{uuid4().hex[:8]}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
