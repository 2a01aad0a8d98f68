"""Typed access to a checkpoint's settings. It records which keys were read, so that no unknown key is ignored."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from outrider.errors import CheckpointError

MAX_LAYERS = 1024
MAX_SIZE = 1 << 24
_MAX_INTEGER = 1 << 31
_MAX_NUMBER = 1e30
_REMEDY = "The file is damaged, or an incompatible converter wrote it: download or convert it again"
_Value = TypeVar("_Value", bool, str)


class Settings:
    """A mapping of settings (GGUF metadata, a config.json object) with checked reads.

    Every read marks its key as understood. `refuse_unread` refuses the keys that are left, because an ignored setting
    may change what the model computes.

    Args:
        values: the settings by their full names; null counts as missing.
        path: the file, for errors.
        prefix: of the keys that are looked up.

    Raises:
        CheckpointError: from every read, naming its key: it is missing (and has no default), of the wrong type, or out
            of range.
    """

    def __init__(self, values: Mapping[str, Any], path: Path, prefix: str = "") -> None:
        self.path, self._values, self._prefix = path, values, prefix
        self._read: set[str] = set()

    def name(self, key: str) -> str:
        """The key's full name in the file."""
        return self._prefix + key

    def has(self, key: str) -> bool:
        """True if the key is there and not null. Does not count as reading it."""
        return self._values.get(self.name(key)) is not None

    def raw(self, key: str, default: Any = None) -> Any:
        """The value as stored, or the default; for a setting of several possible types."""
        self.skip(key)
        return self._values[self.name(key)] if self.has(key) else default

    def integer(self, key: str, default: int | None = None, *, low: int = 0, high: int = _MAX_INTEGER) -> int:
        """An integer between `low` and `high`."""
        return self._integer(key, self._get(key, default), low, high)

    def size(self, key: str, default: int | None = None, *, low: int = 1) -> int:
        """A width or a count: an integer from `low` to 2**24."""
        return self.integer(key, default, low=low, high=MAX_SIZE)

    def number(self, key: str, default: float | None = None, *, low: float = 0.0, high: float = _MAX_NUMBER) -> float:
        """A number from `low` to `high` (so never NaN)."""
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise self._unlike(key, value, f"a number from {low:g} to {high:g}")
        return float(value)

    def flag(self, key: str, default: bool | None = None) -> bool:
        """True or false."""
        return self._typed(bool, key, self._get(key, default), "true or false")

    def text(self, key: str, default: str | None = None) -> str:
        """A string."""
        return self._typed(str, key, self._get(key, default), "a string")

    def texts(self, key: str) -> list[str]:
        """A list of strings."""
        value = self._get(key)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self._unlike(key, value, "a list of strings")
        return value

    def flags(self, key: str, count: int) -> tuple[bool, ...]:
        """A list of `count` booleans, which some writers store as 0 and 1."""
        items = self._items(key, count)
        if not all(isinstance(item, int) and item in (0, 1) for item in items):
            raise self.fault(f"{self.name(key)} is not a list of true and false")
        return tuple(bool(item) for item in items)

    def sizes(self, key: str, count: int, *, high: int = MAX_SIZE) -> tuple[int, ...]:
        """`count` integers from 1 to `high`: a list of that length, or one integer for all."""
        value = self._get(key)
        items = [value] * count if isinstance(value, int) else self._items(key, count)
        return tuple(self._integer(key, item, 1, high) for item in items)

    def token_ids(self, key: str) -> tuple[int, ...]:
        """One token id or a list of them, ascending and each once; empty if the key is missing."""
        value = self.raw(key, [])
        found = value.tolist() if isinstance(value, np.ndarray) else value if isinstance(value, list) else [value]
        if len(found) > MAX_SIZE or not all(type(token) is int and 0 <= token < _MAX_INTEGER for token in found):
            raise self._unlike(key, value, "a token id or a list of token ids")
        return tuple(sorted(set(found)))

    def array(self, key: str, dtype: type[np.generic]) -> np.ndarray[Any, Any]:
        """A one-dimensional array of exactly this dtype."""
        value = self._get(key)
        if not isinstance(value, np.ndarray) or value.dtype != np.dtype(dtype) or value.ndim != 1:
            raise self._unlike(key, value, f"an array of {np.dtype(dtype).name}")
        return value

    def present(self) -> list[str]:
        """The keys under the prefix that are not null. Does not count as reading them."""
        names = (name for name, value in self._values.items() if value is not None and name.startswith(self._prefix))
        return [name.removeprefix(self._prefix) for name in names]

    def section(self, key: str) -> Settings:
        """A nested object as settings of its own."""
        value = self._get(key)
        if not isinstance(value, dict):
            raise self._unlike(key, value, "an object")
        inner = {f"{self.name(key)}.{name}": item for name, item in value.items()}
        return Settings(inner, self.path, f"{self.name(key)}.")

    def skip(self, *keys: str) -> None:
        """Mark keys as understood although nothing reads them."""
        self._read.update(self.name(key) for key in keys)

    def unread(self, ignorable: Collection[str] = ()) -> list[str]:
        """Full names of the settings under the prefix that were not read, except null and those named in `ignorable`.

        A name that ends in a dot stands for all keys that begin with it.
        """
        known = self._read | {self.name(key) for key in ignorable}
        sections = tuple(key for key in known if key.endswith("."))
        there = {key for key, value in self._values.items() if key.startswith(self._prefix) and value is not None}
        return sorted(key for key in there - known if not key.startswith(sections))

    def refuse_unread(self, ignorable: Collection[str] = ()) -> None:
        """Refuse the settings that `unread` finds."""
        if left := self.unread(ignorable):
            shown = ", ".join(left[:6]) + (", ..." if len(left) > 6 else "")
            raise self.fault(
                f"has settings that are not understood ({shown}), which could change what the model computes",
                "Use a newer outrider, or a checkpoint of plain Gemma 3 or Gemma 4",
            )

    def fault(self, problem: str, remedy: str = _REMEDY) -> CheckpointError:
        """A CheckpointError about this file."""
        return CheckpointError(problem, path=self.path, remedy=remedy)

    def _unlike(self, key: str, value: Any, wanted: str) -> CheckpointError:
        shown = repr(value) if not isinstance(value, list | dict | np.ndarray) else f"a {type(value).__name__}"
        shown = shown if len(shown) <= 60 else shown[:57] + "..."
        return self.fault(f"{self.name(key)} is {shown}, not {wanted}")

    def _get(self, key: str, default: Any = None) -> Any:
        value = self.raw(key, default)
        if value is None:
            raise self.fault(f"lacks the setting {self.name(key)}")
        return value

    def _typed(self, kind: type[_Value], key: str, value: Any, wanted: str) -> _Value:
        if not isinstance(value, kind):
            raise self._unlike(key, value, wanted)
        return value

    def _integer(self, key: str, value: Any, low: int, high: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self._unlike(key, value, f"an integer from {low} to {high}")
        return value

    def _items(self, key: str, count: int) -> Sequence[Any]:
        value = self._get(key)
        if not isinstance(value, list | np.ndarray):
            raise self._unlike(key, value, f"a list of {count}")
        if len(value) != count:
            raise self.fault(f"{self.name(key)} is a list of {len(value)}, not a list of {count}")
        return value.tolist() if isinstance(value, np.ndarray) else value
