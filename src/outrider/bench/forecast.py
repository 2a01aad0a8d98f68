"""What `outrider plan` says of the model that is measured, so that it is held against the measurement."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from outrider import kernels
from outrider.roofline.cost import pass_seconds
from outrider.roofline.hardware import Hardware
from outrider.roofline.measured import Gauge
from outrider.roofline.work import target_work

if TYPE_CHECKING:
    from outrider import LLM


_KV_BYTES: dict[kernels.KvFormat, float] = {"float32": 4, "float16": 2, "int8": 1}
"""The scales of int8, one for each head and position, are left out."""


class Forecast:
    """Predicted passes of a loaded model, from figures of the machine that are measured turn by turn."""

    def __init__(self, llm: LLM, context: int) -> None:
        from outrider.checkpoints import open_checkpoint

        tensors = llm.packed.tensors if llm.packed else open_checkpoint(llm.path).tensors
        self._work, self._context = target_work(tensors, llm.config), context
        self._kv_bytes = _KV_BYTES[llm.kv_cache_dtype]
        self._gauge = Gauge(self._work.formats, llm.threads, llm.kv_cache_dtype)
        self._measured: list[Hardware] = []

    def measure(self) -> list[float]:
        """One more turn of the machine's figures; as an arm of `interleaved` it gives no times of its own."""
        self._measured.append(self._gauge.measure())
        return [0.0]

    def seconds(self, rows: int) -> float:
        """Of a pass over so many rows: the median of the turns' predictions."""
        load = {"rows": rows, "context": self._context}
        return median(pass_seconds(self._work, on, **load, kv_bytes=self._kv_bytes) for on in self._measured)
