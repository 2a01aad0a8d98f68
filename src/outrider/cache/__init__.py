"""Key-value caches of running sequences, and of finished ones: the prefix cache."""

from outrider.cache.memory import cache_bytes
from outrider.cache.prefix import CachePool, MediumRows, Sequence

__all__ = ["CachePool", "MediumRows", "Sequence", "cache_bytes"]
