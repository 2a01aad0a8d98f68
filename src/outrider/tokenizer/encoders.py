"""The encoders of a vocabulary, built once for all models of a process that have it.

Building them for Gemma takes about 0.4 s, in a library that holds Python's lock meanwhile: no other thread runs. They
take some 150 MB.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from weakref import WeakValueDictionary

import tokenizers


@dataclass(frozen=True, eq=False)
class Encoders:
    """Not to be changed.

    Attributes:
        plain: encodes control tokens in a text as text. special: encodes them as tokens.
        texts: id -> text as stored in the vocabulary, for all ids.
        hidden: the ids of control tokens.
    """

    plain: tokenizers.Tokenizer
    special: tokenizers.Tokenizer
    texts: Mapping[int, str]
    hidden: frozenset[int]


_built: WeakValueDictionary[bytes, Encoders] = WeakValueDictionary()


def shared(key: bytes, build: Callable[[], Encoders]) -> Encoders:
    """What `build` returns, or has returned for this key, as long as anything refers to it."""
    found = _built.get(key)
    if found is None:
        found = _built[key] = build()
    return found
