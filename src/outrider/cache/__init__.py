"""Key-value caches of running sequences, and of finished ones: the prefix cache."""

from outrider.cache.memory import bytes_per_position, cache_bytes
from outrider.cache.prefix import CachePool, MediumRows, Sequence

__all__ = ["CachePool", "MediumRows", "Sequence", "bytes_per_position", "cache_bytes"]
