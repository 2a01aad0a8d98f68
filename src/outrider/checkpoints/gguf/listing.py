"""Which GGUF files of a folder or a repository are models, by their names alone."""

from __future__ import annotations

import re
from collections.abc import Iterable

from outrider.checkpoints.gguf.split import part_names

_DRAFTER = re.compile(r"(.*[-_./])?(mtp|assistant)[-_./].*", re.IGNORECASE)  # mtp-x.gguf, x-MTP.gguf, MTP/x.gguf
_NO_MODEL = re.compile(r".*(mmproj|imatrix)[^/]*", re.IGNORECASE)


def models_and_drafters(files: Iterable[str]) -> tuple[list[str], list[str]]:
    """The names of models and of MTP drafters, sorted; of a split file, that of its first part.

    Image encoders ("mmproj") and importance matrices are neither.
    """
    weights = [name for name in sorted(files) if name.lower().endswith(".gguf") and not _NO_MODEL.fullmatch(name)]
    whole = [name for name in weights if part_names(name)[0] == name]
    drafters = [name for name in whole if _DRAFTER.fullmatch(name)]
    return [name for name in whole if name not in drafters], drafters
