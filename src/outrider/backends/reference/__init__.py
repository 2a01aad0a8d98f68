"""Programs in numpy, one operation and one row at a time: slow, and short enough to be believed. The tests' oracle."""

from outrider.backends.reference.cache import ReferenceCache
from outrider.backends.reference.executor import ReferenceExecutor

__all__ = ["ReferenceCache", "ReferenceExecutor"]
