"""A model that says what a test demands."""

from __future__ import annotations

import numpy as np
import pytest

from outrider.engine import request as engine_request
from outrider.sampling.choice import TokenChooser

_END = 1


@pytest.fixture
def says(json_llm, monkeypatch):
    """Makes the model say this text, control tokens too, from now on, whatever it is asked."""

    def script(text):
        tokens = [*json_llm.tokenizer.encode(text, add_bos=False, parse_special=True), _END]

        class Scripted(TokenChooser):
            needs_logits = True

            def __init__(self, params, prompt=(), *more):
                super().__init__(params, prompt, *more)
                self._start = len(prompt)

            def choose(self, most_likely, logits, position):
                place = position - self._start
                if place < len(tokens):
                    most_likely = tokens[place]
                    logits[most_likely] = np.float32(1e6)
                return super().choose(most_likely, logits, position)

        monkeypatch.setattr(engine_request, "TokenChooser", Scripted)

    return script
