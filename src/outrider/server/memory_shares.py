"""How several models in one process divide its memory, so that their caches never need more than there is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from outrider.fit import Needs
from outrider.server.service import Service

_CACHED, _KEPT = 0.8, 0.25
"""Of the memory that is left for a model: for keys and values, and those among them that no request uses (see
`loading`)."""


@dataclass(frozen=True)
class Shares:
    """Bytes for the keys and values of one model, and for those among them that no request uses."""

    kv_cache: int
    prefix_cache: int

    @classmethod
    def of(cls, needs: Needs, free: int, others: Sequence[int]) -> Self:
        """The share of a model that is to be loaded.

        What is left beside the weights of all models is divided evenly. If they cannot all be loaded at once, a model
        takes half of what is left beside its own, so that there is room for others.

        Args:
            needs: of the model.
            free: bytes that are not in use or reserved.
            others: bytes that each of the other models needs which are not loaded.
        """
        left = free - needs.weights - needs.buffers
        beside_all = left - sum(others)
        share = beside_all // (len(others) + 1) if beside_all >= needs.cache * (len(others) + 1) else left // 2
        return cls(max(int(_CACHED * share), needs.cache), max(int(_KEPT * share), 0))


def unused_cache_bytes(service: Service) -> int:
    """Bytes that the caches of a loaded model may come to allocate."""
    caches = service.parts.caches
    return max(caches.admission.budget - caches.pages.bytes_in_use, 0)
