"""Training data on disk: a target's tokens, hidden states, keys, values and distributions.

A folder has one file of raw little-endian values per field, with one row per position, one sequence after another:

    tokens.bin        int32                       the token at the position
    hidden.bin        float16 (hidden_size)       the target's hidden state, after its final norm
    sliding.bin       float16 (2, kv_heads, dim)  cached keys, values of the sliding layer of `last_kv_layers`
    full.bin          float16 (2, kv_heads, dim)  the same of its full layer
    top_tokens.bin    int32   (top)               the likeliest tokens at the position, given those before it
    top_logprobs.bin  float16 (top)               and their log-probabilities

`manifest.json` has provenance and shapes, `sequences.jsonl` the start, length and prompt length of each sequence.
Hidden states exist from the prompt's last position on, distributions from the one after it; the last position has
neither state nor keys. Missing values are 0. Rows behind the last listed sequence, which an interrupted run leaves, are
overwritten.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from outrider.errors import UsageError

FORMAT = 1


@dataclass(frozen=True)
class Shapes:
    """Widths of the fields, in values."""

    hidden: int
    sliding: int
    full: int
    top: int

    def fields(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Field -> dtype and shape of a row."""
        return {
            "tokens": ("<i4", ()),
            "hidden": ("<f2", (self.hidden,)),
            "sliding": ("<f2", (self.sliding,)),
            "full": ("<f2", (self.full,)),
            "top_tokens": ("<i4", (self.top,)),
            "top_logprobs": ("<f2", (self.top,)),
        }

    @property
    def row_bytes(self) -> int:
        """Bytes of one position, all fields together."""
        return sum(np.dtype(dtype).itemsize * prod(shape) for dtype, shape in self.fields().values())


@dataclass(frozen=True)
class Span:
    """One sequence: its first row, its rows, its prompt's tokens, and whether the rest was generated greedily."""

    start: int
    length: int
    prompt_length: int
    greedy: bool


class DatasetWriter:
    """Appends sequences to a new or an existing folder.

    Args:
        provenance: what the data comes from; must equal that of an existing folder.

    Raises:
        UsageError: the folder holds data of other provenance, shapes or format.
    """

    def __init__(self, folder: Path, shapes: Shapes, provenance: dict[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        manifest = {"format": FORMAT, "shapes": asdict(shapes), "provenance": provenance}
        path = folder / "manifest.json"
        if path.exists() and json.loads(path.read_text("utf-8")) != manifest:
            raise UsageError(f"{folder} holds data of another target, prompts or version: use another folder")
        path.write_text(json.dumps(manifest, indent=1), "utf-8")
        self.shapes, self._list = shapes, (folder / "sequences.jsonl")
        self.spans = read_spans(folder)
        self._list.write_text("".join(_line(span) for span in self.spans), "utf-8")  # without an incomplete last line
        self.positions = self.spans[-1].start + self.spans[-1].length if self.spans else 0
        self._files = {
            name: _open_at(folder / f"{name}.bin", self.positions, *of) for name, of in shapes.fields().items()
        }

    def append(self, rows: dict[str, npt.NDArray[Any]], prompt_length: int, greedy: bool) -> None:
        """Append a sequence: field -> (positions, ...) values. It is listed only when this returns."""
        length = len(rows["tokens"])
        for name, (dtype, shape) in self.shapes.fields().items():
            values = np.ascontiguousarray(rows[name], np.dtype(dtype))
            if values.shape != (length, *shape):
                raise ValueError(f"{name} is {values.shape}, not {(length, *shape)}")
            self._files[name].write(values.tobytes())
            self._files[name].flush()
        span = Span(self.positions, length, prompt_length, greedy)
        with self._list.open("a", encoding="utf-8") as lines:
            lines.write(_line(span))
        self.spans.append(span)
        self.positions += length

    def close(self) -> None:
        """Closes the files."""
        for file in self._files.values():
            file.close()


class Dataset:
    """A folder of training data, memory-mapped: `fields[name]` is (positions, ...).

    Raises:
        UsageError: the folder holds no data, or data of a format that this version does not read.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / "manifest.json"
        if not path.exists():
            raise UsageError(f"{folder} holds no captured data: capture some first")
        manifest = json.loads(path.read_text("utf-8"))
        if manifest["format"] != FORMAT:
            raise UsageError(f"{folder} holds data of format {manifest['format']}, and this version reads {FORMAT}")
        self.shapes = Shapes(**manifest["shapes"])
        self.provenance: dict[str, Any] = manifest["provenance"]
        self.spans = read_spans(folder)
        if not self.spans:
            raise UsageError(f"{folder} holds no sequences yet: capture some first")
        rows = self.spans[-1].start + self.spans[-1].length
        self.fields = {
            name: np.memmap(folder / f"{name}.bin", np.dtype(dtype), "r", shape=(rows, *shape))
            for name, (dtype, shape) in self.shapes.fields().items()
        }


def read_spans(folder: Path) -> list[Span]:
    """The sequences that a folder lists, without an incomplete last line."""
    path, spans = folder / "sequences.jsonl", []
    for line in path.read_text("utf-8").splitlines(keepends=True) if path.exists() else []:
        if line.endswith("\n"):
            spans.append(Span(**json.loads(line)))
    return spans


def _line(span: Span) -> str:
    return json.dumps(asdict(span)) + "\n"


def _open_at(path: Path, rows: int, dtype: str, shape: tuple[int, ...]) -> Any:
    """The file, truncated to `rows` rows and positioned behind them."""
    size = rows * np.dtype(dtype).itemsize * prod(shape)
    file = path.open("r+b" if path.exists() else "w+b")
    file.truncate(size)
    file.seek(size)
    return file
