"""What `outrider plan` says of the model that is measured, so that it is held against the measurement."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from outrider.roofline.cost import pass_seconds
from outrider.roofline.hardware import Hardware
from outrider.roofline.measured import Gauge
from outrider.roofline.work import target_work

if TYPE_CHECKING:
    from outrider import LLM


class Forecast:
    """Predicted passes of a loaded model, from figures of the machine that are measured turn by turn."""

    def __init__(self, llm: LLM, context: int) -> None:
        from outrider.checkpoints import open_checkpoint

        tensors = llm.packed.tensors if llm.packed else open_checkpoint(llm.path).tensors
        self._work, self._context = target_work(tensors, llm.config), context
        self._gauge = Gauge({matrix.format for matrix in self._work.matrices}, llm.threads)
        self._measured: list[Hardware] = []

    def measure(self) -> list[float]:
        """One more turn of the machine's figures; as an arm of `interleaved` it gives no times of its own."""
        self._measured.append(self._gauge.measure())
        return [0.0]

    def seconds(self, rows: int) -> float:
        """Of a pass over so many rows: the median of the turns' predictions."""
        return median(pass_seconds(self._work, on, rows=rows, context=self._context) for on in self._measured)
