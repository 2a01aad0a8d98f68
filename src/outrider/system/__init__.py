"""What differs between operating systems: one file implements it for each.

`posix` is what Linux and macOS have in common. All of them define the same names.
"""

from __future__ import annotations

import sys

if sys.platform == "win32":
    from outrider.system.windows import (
        cores_of,
        free_memory,
        open_regular,
        permitted_processors,
        remedy_to_make_private,
        temporary_folder,
        tie_to,
        unechoed,
        use_utf8,
    )
else:
    from outrider.system.posix import (
        free_memory,
        open_regular,
        permitted_processors,
        remedy_to_make_private,
        temporary_folder,
        unechoed,
        use_utf8,
    )

    if sys.platform == "darwin":
        from outrider.system.macos import cores_of, tie_to
    else:
        from outrider.system.linux import cores_of, tie_to

__all__ = [
    "cores_of",
    "free_memory",
    "open_regular",
    "permitted_processors",
    "remedy_to_make_private",
    "temporary_folder",
    "tie_to",
    "unechoed",
    "use_utf8",
]
