"""A GGUF file split into parts, NAME-00001-of-00003.gguf and so on, as llama.cpp's `gguf-split` writes them."""

from __future__ import annotations

import re
from pathlib import Path

from outrider.checkpoints.gguf.file import GGUFFile
from outrider.checkpoints.settings import Settings
from outrider.errors import CheckpointError

_PART = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.IGNORECASE)
_MAX_PARTS = 1000


def part_names(name: str) -> list[str]:
    """The names of all parts of the split file to which `name` belongs; only `name` if it is not a part's name."""
    match = _PART.fullmatch(name)
    if match is None or not 1 <= int(match["number"]) <= int(match["count"]) <= _MAX_PARTS:
        return [name]
    return [f"{match['stem']}-{number:05d}-of-{match['count']}.gguf" for number in range(1, int(match["count"]) + 1)]


def open_parts(path: Path) -> list[GGUFFile]:
    """All parts of the file at `path`, in order. The first has the settings, and gets the tensors of all parts.

    Raises:
        CheckpointError: a part is missing, damaged, or of another model.
    """
    paths = [path.with_name(name) for name in part_names(path.name)]
    if missing := [part for part in paths if not part.is_file() and part != path]:
        problem = f"is one of {len(paths)} parts, and {missing[0].name} is not beside it"
        raise CheckpointError(problem, path=path, remedy="Download all parts into one folder")
    files = [GGUFFile(part) for part in paths]
    first, splits = files[0], [Settings(file.values, file.path, "split.") for file in files]
    count = splits[0].integer("count", 1)
    if count != len(files):
        remedy = "Give the parts the names that they were published with: NAME-00001-of-00003.gguf"
        raise first.fault(f"is one of {count} parts, and its name does not say of which others", remedy)
    for number, (file, split) in enumerate(zip(files, splits, strict=True)):
        if count > 1 and (split.integer("no"), split.integer("count")) != (number, count):
            raise file.fault("is a part of another file than its name says", "Download all parts again")
        if number:
            if twice := file.table.keys() & first.table.keys():
                raise file.fault(f"holds the tensor {min(twice)}, as another part does", "Download all parts again")
            first.table.update(file.table)
            first.skipped.extend(file.skipped)
    found = len(first.table) + len(first.skipped)
    if count > 1 and (stated := splits[0].integer("tensors.count")) != found:
        raise first.fault(f"has {found} tensors in all its parts, but its header says {stated}")
    return files
