"""Which modules the names, patterns and classes in a quantization config stand for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import translate

from outrider.checkpoints.hf.quantized.parts import Module
from outrider.checkpoints.settings import Settings


@dataclass(frozen=True)
class Modules:
    """A set of modules.

    Attributes:
        names: exact names, or classes.
        patterns: each says whether it matches a name.
    """

    names: frozenset[str]
    patterns: tuple[Callable[[str], object], ...]

    def match(self, module: Module) -> int | None:
        """How closely it is meant: 0 by its name, 1 by a pattern, 2 by its class; None if it is not."""
        if not self.names.isdisjoint(module.names):
            return 0
        if any(matches(name) for matches in self.patterns for name in module.names):
            return 1
        return 2 if module.kind in self.names else None

    def __contains__(self, module: Module) -> bool:
        return self.match(module) is not None


def compressed_tensors_modules(names: Iterable[str], config: Settings) -> Modules:
    """As compressed-tensors writes them: a name, a class, or "re:" and a pattern that matches from the beginning."""
    patterns = [name.removeprefix("re:") for name in names if name.startswith("re:")]
    exact = frozenset(name for name in names if not name.startswith("re:"))
    return Modules(exact, tuple(compiled(pattern, config).match for pattern in patterns))


def wildcard_modules(names: Iterable[str], config: Settings) -> Modules:
    """As modelopt writes them: a name, which stands for the modules inside it too, or one with asterisks."""
    exact = frozenset(name for name in names if "*" not in name)
    wild = compiled("|".join(translate(name) for name in names if "*" in name) or "(?!)", config)
    return Modules(exact, (wild.match, lambda name: not exact.isdisjoint(_parents(name))))


def _parents(name: str) -> Iterable[str]:
    """The modules that a module is inside of."""
    while name := name.rpartition(".")[0]:
        yield name


def transformers_modules(names: Iterable[str], config: Settings) -> Modules:
    """As transformers reads `modules_to_not_convert`: a pattern up to a full stop or the end, or the end of a name."""
    patterns = [compiled(rf"(?:{name})(?:(?<=\.)|(?=\.|$))", config).match for name in names if name]
    endings = tuple(name for name in names if name)
    return Modules(frozenset(), (*patterns, lambda name: name.endswith(endings)))


def compiled(pattern: str, config: Settings) -> re.Pattern[str]:
    """A regular expression of the config.

    Raises:
        CheckpointError: it is none.
    """
    try:
        return re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise config.fault(f"has a pattern for names of modules that is none: {pattern!r} ({error})") from error
