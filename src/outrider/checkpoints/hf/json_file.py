"""A JSON file of a Hugging Face folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from outrider.errors import CheckpointError, memory_ran_out

DAMAGED = "The file is damaged: download it again"
_MAX_BYTES = 1 << 26


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file; empty if there is no such file.

    Raises:
        CheckpointError: the file cannot be read, is larger than 64 MB, or holds no JSON object.
    """
    if not path.is_file():
        return {}
    try:
        if path.stat().st_size > _MAX_BYTES:
            problem = f"is larger than {_MAX_BYTES >> 20} MB, which no config is"
            raise CheckpointError(problem, path=path, remedy=DAMAGED)
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        if memory_ran_out(error):
            raise
        raise CheckpointError(f"cannot be read as JSON ({error})", path=path, remedy=DAMAGED) from error
    if not isinstance(content, dict):
        raise CheckpointError("holds no JSON object", path=path, remedy=DAMAGED)
    return content
