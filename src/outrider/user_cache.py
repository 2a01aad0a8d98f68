"""The folders of outrider for this user, as the XDG base directory specification names them.

What can be made again lies in $XDG_CACHE_HOME/outrider, else ~/.cache/outrider; what cannot in
$XDG_STATE_HOME/outrider, else ~/.local/state/outrider. A folder may not exist yet; there is none for a user without a
home folder.
"""

from __future__ import annotations

import os
from pathlib import Path


def user_cache(name: str) -> Path | None:
    """The folder `name` of what can be made again."""
    return _folder("XDG_CACHE_HOME", ".cache", name)


def user_state(name: str) -> Path | None:
    """The folder `name` of what cannot."""
    return _folder("XDG_STATE_HOME", ".local/state", name)


def _folder(variable: str, below_home: str, name: str) -> Path | None:
    try:
        root = Path(os.environ.get(variable) or Path.home() / below_home)
    except RuntimeError:  # no home folder
        return None
    return root / "outrider" / name
