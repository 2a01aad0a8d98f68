"""What `outrider plan` says of the model that is measured, so that it is held against the measurement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from outrider.backends import cpu
from outrider.roofline.cost import pass_seconds
from outrider.roofline.measured import Microbenchmarks
from outrider.roofline.work import target_work

if TYPE_CHECKING:
    from outrider import LLM


_KV_BYTES: dict[cpu.KvFormat, float] = {"float32": 4, "float16": 2, "int8": 1}
"""The scales of int8, one for each head and position, are left out."""


class Forecast:
    """Predicted passes of a loaded model, from figures of the machine that are measured beside them."""

    def __init__(self, llm: LLM, context: int) -> None:
        from outrider.checkpoints import open_checkpoint

        tensors = llm.packed.tensors if llm.packed else open_checkpoint(llm.path).tensors
        self._work, self._context = target_work(tensors, llm.config), context
        self._kv_bytes = _KV_BYTES[llm.kv_cache_dtype]
        self._machine = Microbenchmarks(self._work.formats, self._work.width, llm.threads, llm.kv_cache_dtype)

    def seconds(self, rows: Sequence[int]) -> list[float]:
        """Of passes over so many rows each, by the machine's figures of just now. Takes less than a second."""
        here = self._machine.measure()
        return [pass_seconds(self._work, here, rows=of, context=self._context, kv_bytes=self._kv_bytes) for of in rows]
