"""Typed access to a checkpoint's settings that remembers what was read, so that nothing is dropped unseen."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from outrider.errors import CheckpointError

_LARGEST = 1 << 31
_HIGHEST = 1e30


class Settings:
    """A mapping of settings (GGUF metadata, a config.json object) with checked reads.

    Every read names the key in its error and marks it as understood; `refuse_unread` then names what was left over,
    because a setting that is skipped may change the arithmetic. `prefix` is put in front of a key to look it up, and
    shown in errors.

    Raises:
        CheckpointError: from every read, when the key is missing (and has no default), of the wrong type, or out of
            range.
    """

    def __init__(self, values: Mapping[str, Any], path: Path, prefix: str = "") -> None:
        self.path = path
        self._values = values
        self._prefix = prefix
        self._read: set[str] = set()

    def name(self, key: str) -> str:
        """The key as the file spells it."""
        return self._prefix + key

    def has(self, key: str) -> bool:
        """True if the key is there and not null. Does not count as reading it."""
        return self._values.get(self.name(key)) is not None

    def raw(self, key: str) -> Any:
        """The value as it stands, or None; for a setting of several possible types."""
        self._read.add(self.name(key))
        return self._values.get(self.name(key))

    def integer(self, key: str, default: int | None = None, *, low: int = 0, high: int = _LARGEST) -> int:
        """An integer between `low` and `high`."""
        return self._integer(key, self._get(key, default), low, high)

    def number(self, key: str, default: float | None = None, *, low: float = 0.0) -> float:
        """A number from `low` to 1e30 (so never NaN)."""
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= _HIGHEST:
            raise self.fault(f"{self.name(key)} is {_shown(value)}, not a number of at least {low:g}")
        return float(value)

    def flag(self, key: str, default: bool | None = None) -> bool:
        """True or false."""
        value = self._get(key, default)
        if not isinstance(value, bool):
            raise self.fault(f"{self.name(key)} is {_shown(value)}, not true or false")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        """A string."""
        value = self._get(key, default)
        if not isinstance(value, str):
            raise self.fault(f"{self.name(key)} is {_shown(value)}, not a string")
        return value

    def texts(self, key: str) -> list[str]:
        """A list of strings."""
        value = self._get(key, None)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.fault(f"{self.name(key)} is {_shown(value)}, not a list of strings")
        return value

    def flags(self, key: str, count: int) -> tuple[bool, ...]:
        """A list of `count` truth values, which some writers store as 0 and 1."""
        items = self._items(key, count)
        if not all(isinstance(item, int) and item in (0, 1) for item in items):
            raise self.fault(f"{self.name(key)} is not a list of true and false")
        return tuple(bool(item) for item in items)

    def integers(self, key: str, count: int, *, low: int = 0, high: int = _LARGEST) -> tuple[int, ...]:
        """`count` integers: a list of that length, or one integer that stands for all."""
        value = self._get(key, None)
        if isinstance(value, int) and not isinstance(value, bool):
            return (self._integer(key, value, low, high),) * count
        return tuple(self._integer(key, item, low, high) for item in self._items(key, count))

    def array(self, key: str, dtype: type[np.generic]) -> np.ndarray[Any, Any]:
        """A one-dimensional array of exactly this dtype."""
        value = self._get(key, None)
        if not isinstance(value, np.ndarray) or value.dtype != np.dtype(dtype) or value.ndim != 1:
            raise self.fault(f"{self.name(key)} is not an array of {np.dtype(dtype).name}")
        return value

    def section(self, key: str) -> Settings:
        """A nested object as settings of its own."""
        value = self._get(key, None)
        if not isinstance(value, dict):
            raise self.fault(f"{self.name(key)} is {_shown(value)}, not an object")
        inner = {f"{self.name(key)}.{name}": item for name, item in value.items()}
        return Settings(inner, self.path, f"{self.name(key)}.")

    def skip(self, *keys: str) -> None:
        """Mark keys as understood without reading them."""
        self._read.update(self.name(key) for key in keys)

    def refuse_unread(self, ignorable: Collection[str] = ()) -> None:
        """Refuse the settings under the prefix that nobody read, unless they are null or named in `ignorable`."""
        known = self._read | {self.name(key) for key in ignorable}
        left = sorted(
            key
            for key, value in self._values.items()
            if key.startswith(self._prefix) and key not in known and value is not None
        )
        if left:
            raise self.fault(
                f"has settings that are not understood ({', '.join(left[:6])}{', ...' if len(left) > 6 else ''}), and "
                "ignoring them could change what the model says",
                "Use a newer outrider, or a checkpoint of plain Gemma 3 or Gemma 4",
            )

    def fault(self, problem: str, remedy: str | None = None) -> CheckpointError:
        """A CheckpointError about this file."""
        return CheckpointError(
            problem,
            path=self.path,
            remedy=remedy
            or "The file is damaged or was made by a converter that differs: download or convert it again",
        )

    def _get(self, key: str, default: Any) -> Any:
        self._read.add(self.name(key))
        value = self._values.get(self.name(key))
        if value is None:
            value = default
        if value is None:
            raise self.fault(f"lacks the setting {self.name(key)}")
        return value

    def _integer(self, key: str, value: Any, low: int, high: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.fault(f"{self.name(key)} is {_shown(value)}, not an integer from {low} to {high}")
        return value

    def _items(self, key: str, count: int) -> Sequence[Any]:
        value = self._get(key, None)
        items = value.tolist() if isinstance(value, np.ndarray) and len(value) == count else value
        if not isinstance(items, list) or len(items) != count:
            length = f"a list of {len(value)}" if isinstance(value, list | np.ndarray) else _shown(value)
            raise self.fault(f"{self.name(key)} is {length}, not a list of {count}")
        return items


def _shown(value: Any) -> str:
    """A value in at most 60 characters."""
    shown = repr(value) if not isinstance(value, list | dict | np.ndarray) else f"a {type(value).__name__}"
    return shown if len(shown) <= 60 else shown[:57] + "..."
