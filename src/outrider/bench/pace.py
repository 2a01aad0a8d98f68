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
    cached_token_seconds: float
    """Of a prompt that outrider takes from its prefix cache, and the peer computes anew."""
    answer_seconds: float
    answer_tokens: int
    """Most of an answer. Shorter prompts are not taken from the prefix cache (see `CachePool.open`)."""

    def seconds(self, lengths: Lengths, *, cached: bool = False) -> float:
        """Of one prompt and its further turns, decoded once in every arm.

        Args:
            cached: they were computed in a round before.
        """
        return sum(self._prompt_seconds(length, cached) + self.answer_seconds for length in lengths)

    def rounds_seconds(self, lengths: Sequence[Lengths], rounds: int) -> float:
        """Of all prompts, the first round and those after it."""
        return sum(self.seconds(of) + (rounds - 1) * self.seconds(of, cached=True) for of in lengths)

    def fitting_rounds(self, lengths: Sequence[Lengths]) -> int:
        """How many rounds over these prompts fit into four minutes, by the estimate: 1 to `MOST_ROUNDS`."""
        fits = (
            rounds for rounds in range(MOST_ROUNDS, 1, -1) if self.rounds_seconds(lengths, rounds) <= _PATIENCE_SECONDS
        )
        return next(fits, 1)

    def _prompt_seconds(self, length: int, cached: bool) -> float:
        known = cached and length > self.answer_tokens
        return (self.cached_token_seconds if known else self.prompt_token_seconds) * length


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
    comparer.prefill(probe, cache_prompt=True)  # computed and kept
    started = perf_counter()
    comparer.prefill(probe, cache_prompt=True)
    cached_token_seconds = (perf_counter() - started) / len(probe)
    most = comparer.sampling.max_tokens
    if most > comparer.llm.engine.chunk:
        # An answer that long has taken the place of what sliding layers held of its prompt, which is computed anew.
        cached_token_seconds = prompt_token_seconds
    answer_seconds = []
    for i in _spread(short, max(rounds * sum(map(len, lengths)) // _SAMPLED_SHARE, 1)):
        started = perf_counter()
        comparer.compare(prompts[i], comparer.arms)
        answer_seconds.append(perf_counter() - started - prompt_token_seconds * lengths[i][0])
    return Pace(prompt_token_seconds, cached_token_seconds, max(fmean(answer_seconds), 0.0), most)


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
