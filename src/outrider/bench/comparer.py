"""Decodes prompts in every way that is compared, one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from outrider.bench.comparison import Comparison
from outrider.bench.prompt import Prompt, render
from outrider.bench.usual_pace import Gauges, read_gauge

if TYPE_CHECKING:
    from outrider import LLM, RequestOutput, SamplingParams
    from outrider.bench.peer import LlamaCpp


class Comparer:
    """A model, and a peer if there is one, asked for the same answers.

    Args:
        sampling: of outrider's answers, which an end token may end before `max_tokens`, so that what is measured is
            text that people get. The peer decodes as many tokens greedily, which takes it no longer.
    """

    def __init__(self, llm: LLM, peer: LlamaCpp | None, sampling: SamplingParams) -> None:
        self.llm, self.peer, self.sampling = llm, peer, sampling
        self._params = {"plain": replace(sampling, draft="off"), "drafted": sampling}
        self.arms: tuple[str, ...] = (*self._params, *(("peer",) if peer else ()))

    def compare(self, prompt: Prompt, order: Sequence[str]) -> Comparison:
        """One prompt, its arms in the given order."""
        token_ids = render(prompt, self.llm)
        outputs: dict[str, RequestOutput] = {}
        gauges: dict[str, Gauges] = {}
        peer_speed = None
        before = read_gauge(self.llm)
        for arm in order:
            if arm in self._params:
                outputs[arm] = self.llm.generate([token_ids], self._params[arm])[0]
            elif self.peer is not None:
                peer_speed = self.peer.decode(token_ids, self.sampling.max_tokens).tokens_per_second
            after = read_gauge(self.llm)
            gauges[arm], before = (before, after), after
        return Comparison(prompt, outputs["plain"], outputs["drafted"], peer_speed, gauges)

    def converse(self, prompt: Prompt, order: Sequence[str]) -> Iterator[Comparison]:
        """One prompt, then the further turns of its conversation if it has any, after the plain answers.

        These are the same in every round, and so are the turns after them: even a sampled answer depends on nothing but
        prompt and seed.
        """
        following: Prompt | None = prompt
        while following is not None:
            yield (comparison := self.compare(following, order))
            following = following.answered(comparison.plain.text)

    def prefill(self, token_ids: list[int]) -> None:
        """Computes a prompt once in every arm, for an answer of one token."""
        for params in self._params.values():
            self.llm.generate([token_ids], replace(params, max_tokens=1))
        if self.peer is not None:
            self.peer.decode(token_ids, 1)
