"""Key-value caches of running sequences, and the prefix tree that they share."""

from outrider.cache.memory import bytes_per_position, cache_bytes
from outrider.cache.pool import CachePool
from outrider.cache.rows import MediumRows
from outrider.cache.sequence import Sequence

__all__ = ["CachePool", "MediumRows", "Sequence", "bytes_per_position", "cache_bytes"]
