"""Names that `LLM` had before `LLM.parts`. To be removed once nothing uses them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from outrider.backends import cpu
from outrider.cache import CachePool
from outrider.engine.engine import Engine
from outrider.engine.measure import Measure
from outrider.engine.target import Target
from outrider.loading import Loaded
from outrider.quant import Packed
from outrider.sampling.constraint import GrammarCompiler


class FormerNames:
    """Each is a part of `LLM.parts`."""

    if TYPE_CHECKING:

        @property
        def parts(self) -> Loaded: ...

    @property
    def engine(self) -> Engine:
        return self.parts.engine

    @property
    def target(self) -> Target:
        return self.parts.target

    @property
    def caches(self) -> CachePool:
        return self.parts.caches

    @property
    def measure(self) -> Measure:
        return self.parts.measure

    @property
    def grammars(self) -> GrammarCompiler:
        return self.parts.grammars

    @property
    def threads(self) -> int:
        return self.parts.threads

    @property
    def kv_cache_dtype(self) -> cpu.KvFormat:
        return self.parts.kv_cache_dtype

    @property
    def packed(self) -> Packed | None:
        return self.parts.packed

    @property
    def weight_bytes(self) -> int:
        return self.parts.weight_bytes

    @property
    def load_seconds(self) -> float:
        return self.parts.load_seconds

    def encode(self, prompt: str | Sequence[int]) -> list[int]:
        return self.parts.prompts.encode(prompt)

    def chat_prompt(self, messages: Sequence[Mapping[str, Any]], **options: Any) -> list[int]:
        return self.parts.prompts.conversation(messages, **options)
