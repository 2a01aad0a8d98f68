"""How long a comparison will take: what its prompts hold, times how fast a few of them were."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from time import perf_counter
from typing import TYPE_CHECKING

from outrider.bench.prompt import Prompt, render
from outrider.errors import UsageError

if TYPE_CHECKING:
    from outrider import LLM
    from outrider.bench.comparer import Comparer

PROBE_TOKENS = 512
"""Of the longest prompt, computed to see how fast prompts are: enough for full passes. No longer one is a sample."""
MOST_SAMPLES = 6
_SAMPLED_SHARE = 12
"""A sample for so many of the answers to come: finding out how long it takes shall not take long itself."""

MOST_ROUNDS = 8
_PATIENCE_SECONDS = 240.0
"""What a comparison may be estimated at if nobody said how many rounds it shall have. It shall take less than five
minutes, and estimates were up to a fifth too low."""

Lengths = list[int]
"""Tokens of a prompt, and of each further turn of its conversation."""


@dataclass(frozen=True)
class Pace:
    """How fast all arms together are."""

    prompt_token_seconds: float
    answer_seconds: float

    def seconds(self, lengths: Lengths) -> float:
        """Of one prompt and its further turns, decoded once in every arm."""
        return sum(self.prompt_token_seconds * length + self.answer_seconds for length in lengths)

    def fitting_rounds(self, lengths: Sequence[Lengths]) -> int:
        """How many rounds over these prompts fit into four minutes, by the estimate: 1 to `MOST_ROUNDS`."""
        one = sum(map(self.seconds, lengths))
        return min(max(int(_PATIENCE_SECONDS / one), 1), MOST_ROUNDS) if one else MOST_ROUNDS


def turn_lengths(prompts: Sequence[Prompt], llm: LLM, max_tokens: int) -> list[Lengths]:
    """The lengths of every prompt; of further turns the most that they can have, with answers of `max_tokens` tokens.

    So it is known that the model takes all of them before minutes are spent on the first ones.

    Raises:
        UsageError: one is too long for the model's context, or as LLM.chat_prompt; the message says which one.
    """
    found: list[Lengths] = []
    for number, prompt in enumerate(prompts, 1):
        try:
            found.append(_lengths(prompt, llm, max_tokens))
        except UsageError as error:
            begins = (prompt.text or prompt.messages[-1].content)[:40]
            raise UsageError(f"prompt {number} ({prompt.category}), {begins!r}...: {error}") from error
    return found


def measure_pace(comparer: Comparer, prompts: Sequence[Prompt], lengths: Sequence[Lengths], rounds: int) -> Pace:
    """Decodes a few of the prompts, which are not counted.

    Args:
        lengths: the prompts', in their order.
        rounds: how often all of them will be decoded.
    """
    short = [i for i, of in enumerate(lengths) if of[0] <= PROBE_TOKENS] or list(range(len(prompts)))
    longest = max(range(len(prompts)), key=lambda i: lengths[i][0])
    probe = render(prompts[longest], comparer.llm)[:PROBE_TOKENS]
    comparer.prefill(render(prompts[short[0]], comparer.llm)[:PROBE_TOKENS])  # reads the weights for the first time
    started = perf_counter()
    comparer.prefill(probe)
    prompt_token_seconds = (perf_counter() - started) / len(probe)
    answer_seconds = []
    for i in _spread(short, max(rounds * sum(map(len, lengths)) // _SAMPLED_SHARE, 1)):
        started = perf_counter()
        comparer.compare(prompts[i], comparer.arms)
        answer_seconds.append(perf_counter() - started - prompt_token_seconds * lengths[i][0])
    return Pace(prompt_token_seconds, max(fmean(answer_seconds), 0.0))


def _lengths(prompt: Prompt, llm: LLM, max_tokens: int) -> Lengths:
    lengths = [len(render(prompt, llm))]
    # Each turn with something in the place of the answers before it, whose own tokens are added.
    following = prompt.answered("...")
    while following is not None:
        answers = len(lengths)
        lengths.append(len(render(following, llm)) + answers * max_tokens)
        if lengths[-1] >= llm.context:
            raise UsageError(
                f"turn {answers + 1} can have {lengths[-1]} tokens with the answers before it, and leaves no room in a "
                f"context of {llm.context}: lower --max-tokens, or leave this prompt out"
            )
        following = following.answered("...")
    return lengths


def _spread(places: Sequence[int], count: int) -> list[int]:
    """So many of the places, at most MOST_SAMPLES, at equal distances, so that they are of several categories."""
    count = min(count, MOST_SAMPLES, len(places))
    return [places[(2 * i + 1) * len(places) // (2 * count)] for i in range(count)]
