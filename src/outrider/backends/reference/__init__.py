"""The reference executor: programs in numpy, one operation at a time. Slow and simple; the tests' oracle."""

from outrider.backends.reference.cache import ReferenceCache
from outrider.backends.reference.executor import ReferenceExecutor

__all__ = ["ReferenceCache", "ReferenceExecutor"]
