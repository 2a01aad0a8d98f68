"""The folder in which outrider keeps what it can make again: $XDG_CACHE_HOME/outrider, else ~/.cache/outrider."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache(name: str) -> Path | None:
    """The folder `name` in the user's cache, which may not exist yet; None for a user without a home folder."""
    try:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # no home folder
        return None
    return root / "outrider" / name
