"""Prints the wheel in dist/ that can be installed in place of compiling, if there is one.

It is of this version, for this Python, system and processor, and no source file is newer.
"""

from __future__ import annotations

import platform
import sys
import tomllib
from pathlib import Path

_SYSTEM = {"linux": "manylinux", "darwin": "macosx"}.get(sys.platform, "win")


def wheel_at_hand(root: Path) -> Path | None:
    """The wheel for this interpreter in the folder `dist` of the checkout at `root`, or None."""
    version = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    python = "cp311-cp311" if sys.version_info < (3, 12) else "cp312-abi3"
    changed = max(path.stat().st_mtime for path in _sources(root))
    wheels = (root / "dist").glob(f"outrider-{version}-{python}-{_SYSTEM}*_{platform.machine().lower()}.whl")
    return next((wheel for wheel in wheels if wheel.stat().st_mtime >= changed), None)


def _sources(root: Path) -> list[Path]:
    files = [path for folder in ("csrc", "src") for path in (root / folder).rglob("*") if path.is_file()]
    made = (".pyc", ".pyi", ".so")
    return [root / "pyproject.toml", root / "CMakeLists.txt", *(path for path in files if path.suffix not in made)]


if __name__ == "__main__":
    print(wheel_at_hand(Path(__file__).parent.parent) or "")
