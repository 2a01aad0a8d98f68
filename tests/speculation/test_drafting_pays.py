"""The controller on recorded text with passes of known cost: never much slower than plain decoding, and close to the
best fixed length, which nobody knows beforehand. No model and no clock, so the figures are the same everywhere."""

from __future__ import annotations

import random
import re
import textwrap
from pathlib import Path

import pytest

from outrider import SamplingParams
from outrider.drafters.protocol import SequenceState
from outrider.drafters.registry import Settings, make_drafters
from outrider.sampling.choice import TokenChooser
from outrider.speculation.costs import VerifyCost
from outrider.speculation.planner import DraftPlanner
from outrider.speculation.walk import walk

CURVES = {
    "nearly free up to 8 rows": [7.6, 7.7, 8.3, 9.4, 15.6],
    "dear from 8 rows on": [35.6, 40.6, 45.2, 74.2, 136.5],
    "never free": [10.0, 17.0, 23.0, 34.0, 52.0],
}


def python_source() -> list[int]:
    """Code repeats itself now and then."""
    words = re.findall(r"\w+|\s+|.", Path(textwrap.__file__).read_text("utf-8"))
    return [hash_free(word) for word in words]


def hash_free(word: str) -> int:
    return int.from_bytes(word.encode()[:6], "little")


def random_tokens() -> list[int]:
    rng = random.Random(0)
    return [rng.randrange(1000) for _ in range(3000)]


def few_random_tokens() -> list[int]:
    """Every pair of tokens was seen before, and says nothing about the next: bait for a lookup."""
    rng = random.Random(0)
    return [rng.randrange(12) for _ in range(3000)]


def copied_text() -> list[int]:
    rng = random.Random(1)
    page = [rng.randrange(5000) for _ in range(400)]
    copy = list(page)
    copy[200] = 7
    return page * 2 + copy * 3


TEXTS = {f.__name__: f for f in (python_source, random_tokens, few_random_tokens, copied_text)}


class NoCache:
    """Nothing is computed."""

    length = 0


def seconds(text: list[int], curve: list[float], setting: str | int) -> float:
    """The time of writing the text after its first fifth, in requests of 150 tokens."""
    true = VerifyCost([1, 2, 4, 8, 16], [ms / 1e3 for ms in curve])
    planner = DraftPlanner(VerifyCost([1, 2, 4, 8, 16], [ms / 1e3 for ms in curve]), make_drafters(Settings(0)))
    total = 0.0
    for number, begin in enumerate(range(len(text) // 5, len(text) - 150, 150)):
        tokens = text[:begin][-600:]
        chooser, end = TokenChooser(SamplingParams()), len(tokens) + 150
        sequence = SequenceState(number, tokens, NoCache(), chooser, end, setting, "")  # type: ignore[arg-type]
        rest = iter(text[begin : begin + 150])
        planner.open(sequence)
        while sequence.room > 0:
            (draft,) = planner.propose([sequence])

            def emit(_node, tokens=tokens, rest=rest):
                token = next(rest, None)
                if token is not None:
                    tokens.append(token)
                return token

            verdict = walk(draft, emit)
            planner.learn(sequence, draft, verdict)
            planner.learn_cost([draft], 0, true(1 + len(draft)), 0.0)
            total += true(1 + len(draft))
        planner.close(sequence)
    return total


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("text", TEXTS)
def test_the_controller_is_close_to_the_best_fixed_length_and_never_much_slower_than_none(text, curve):
    tokens, milliseconds = TEXTS[text](), CURVES[curve]
    plain = seconds(tokens, milliseconds, "off")
    best = min(seconds(tokens, milliseconds, length) for length in (1, 2, 3, 4, 6, 8, 12, 15))
    auto = seconds(tokens, milliseconds, "auto")
    assert auto <= plain / 0.97
    assert auto <= min(best, plain) / 0.95
    if text == "copied_text":
        assert auto < plain / 2
