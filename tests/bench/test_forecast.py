"""What is predicted of a loaded model."""

from __future__ import annotations

from outrider import LLM
from outrider.bench.forecast import Forecast


def test_a_loaded_models_passes_are_predicted(tiny):
    llm = LLM(tiny("gemma4-moe").gguf, drafter=None, threads=1)
    seconds = Forecast(llm, 64).seconds((1, 4, 16))
    assert 0 < seconds[0] <= seconds[1] <= seconds[2] < 1
