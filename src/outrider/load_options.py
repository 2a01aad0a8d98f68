"""Options of loading a model, checked before anything is opened."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from outrider.backends import cpu
from outrider.errors import UsageError, given
from outrider.quant import QUANTIZATIONS, Quantization

_MOST_THREADS = 256
_NAMED_PATHS = "a dict of names and paths, such as {'sql': 'sql-lora'}"


@dataclass(frozen=True)
class LoadOptions:
    """Options of loading; see `LLM`.

    Raises:
        UsageError: an option is of a wrong type or out of its range.
    """

    drafter: str | Path | None = "auto"
    lookup: bool = True
    lookup_history: int = 0
    prefix_cache_bytes: int | None = None
    threads: int | None = None
    context: int | None = None
    kv_cache_dtype: cpu.KvFormat = "int8"
    quantize: Quantization | None = None
    lora: str | Path | Mapping[str, str | Path] = field(default_factory=dict)
    lora_drafters: Mapping[str, str | Path] = field(default_factory=dict)
    prefix_cache_dir: str | Path | None = None
    prefix_cache_disk: int | None = None
    kv_cache_bytes: int | None = None

    def __post_init__(self) -> None:
        for name, expected, fits in (
            ("drafter", '"auto", "off", None or a path', isinstance(self.drafter, str | Path | None)),
            ("lookup", "True or False", isinstance(self.lookup, bool)),
            ("lookup_history", "0 (none) or more tokens", _within(self.lookup_history, 0)),
            ("prefix_cache_bytes", "0 (none) or more", _within(self.prefix_cache_bytes, 0)),
            ("threads", f"None or a number from 1 to {_MOST_THREADS}", _within(self.threads, 1, _MOST_THREADS)),
            ("context", "None or a number of tokens from 2", _within(self.context, 2)),
            ("kv_cache_dtype", f"one of {', '.join(cpu.KV_FORMATS)}", self.kv_cache_dtype in cpu.KV_FORMATS),
            ("quantize", f"None or one of {', '.join(QUANTIZATIONS)}", self.quantize in (None, *QUANTIZATIONS)),
            ("lora", f"a path, or {_NAMED_PATHS}", _named_paths(self.lora) or isinstance(self.lora, str | Path)),
            ("lora_drafters", _NAMED_PATHS, _named_paths(self.lora_drafters)),
            ("prefix_cache_dir", "None or a path", isinstance(self.prefix_cache_dir, str | Path | None)),
            ("prefix_cache_disk", "None or a number of bytes", _within(self.prefix_cache_disk, 1)),
            ("kv_cache_bytes", "None or a number of bytes", _within(self.kv_cache_bytes, 1)),
        ):
            if not fits:
                raise UsageError(f"{name} must be {expected}, not {given(getattr(self, name))}")
        if self.prefix_cache_disk is not None and self.prefix_cache_dir is None:
            raise UsageError("prefix_cache_disk is the limit of a folder: name it with prefix_cache_dir")
        adapters = self.lora if isinstance(self.lora, Mapping) else {}
        if other := self.lora_drafters.keys() - adapters.keys():
            raise UsageError(f"there is no adapter {min(other)!r} for its drafter: load it with lora={{name: path}}")


def _within(value: object, least: int, most: float = math.inf) -> bool:
    """Whether an option is None or a whole number in a range."""
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and least <= value <= most)


def _named_paths(value: object) -> bool:
    """Whether an option maps names to paths."""
    return isinstance(value, Mapping) and all(
        isinstance(name, str) and name and isinstance(path, str | Path) for name, path in value.items()
    )
