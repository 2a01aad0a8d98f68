"""Who owns which keys and values: caches of running sequences, and of finished ones whose prefix may serve again."""

from outrider.cache.memory import available_bytes, cache_bytes
from outrider.cache.prefix import CachePool, MediumRows, Sequence

__all__ = ["CachePool", "MediumRows", "Sequence", "available_bytes", "cache_bytes"]
