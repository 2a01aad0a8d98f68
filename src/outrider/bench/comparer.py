"""Decodes prompts in every way that is compared, one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count
from time import perf_counter
from typing import TYPE_CHECKING

from outrider.bench.comparison import Comparison
from outrider.bench.prompt import Prompt, render
from outrider.bench.usual_pace import Gauges, read_gauge
from outrider.engine.outputs import RequestOutput

if TYPE_CHECKING:
    from outrider import LLM, SamplingParams
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
        self._salts: dict[Prompt, str] = {}  # under which each prompt was computed last
        self._number = count()

    def compare(self, prompt: Prompt, order: Sequence[str], *, cache_prompt: bool = False) -> Comparison:
        """One prompt, its arms in the given order.

        Args:
            cache_prompt: outrider's arms may take the prompt from the prefix cache. Else each computes it, which shows
                how long the first token takes.
        """
        token_ids = render(prompt, self.llm)
        outputs: dict[str, RequestOutput] = {}
        gauges: dict[str, Gauges] = {}
        peer_speed = None
        last = [arm for arm in order if arm in self._params][-1]
        for arm in order:
            if arm in self._params:
                asked = self._reusing(arm, prompt) if cache_prompt else self._computing(arm, prompt, keep=arm == last)
                outputs[arm], gauges[arm] = self._answer(token_ids, asked)
            elif self.peer is not None:
                before = read_gauge(self.llm)
                peer_speed = self.peer.decode(token_ids, self.sampling.max_tokens).tokens_per_second
                gauges[arm] = before, read_gauge(self.llm)
        return Comparison(prompt, outputs["plain"], outputs["drafted"], peer_speed, gauges)

    def _answer(self, token_ids: list[int], params: SamplingParams) -> tuple[RequestOutput, Gauges]:
        """An answer, and gauges of the time in which it was decoded.

        The first is read when the prompt has been computed: that can take seconds, and then says nothing of the machine
        at its beginning. The time that it takes is no part of the answer's.
        """
        stream = self.llm.stream(token_ids, params)
        pieces = [next(piece for piece in stream if piece.token_ids or piece.finish_reason)]
        started = perf_counter()
        before = read_gauge(self.llm)
        paused = perf_counter() - started
        pieces += stream
        end = pieces[-1]
        assert end.finish_reason is not None, "a stream ends with an answer's end"
        assert end.stats is not None, "which has its stats"
        stats = replace(end.stats, decode_seconds=end.stats.decode_seconds - paused) if len(pieces) > 1 else end.stats
        tokens = tuple(token for piece in pieces for token in piece.token_ids)
        text = "".join(piece.text for piece in pieces)
        output = RequestOutput(tuple(token_ids), tokens, text, end.finish_reason, stats)
        return output, (before, read_gauge(self.llm))

    def converse(self, prompt: Prompt, order: Sequence[str], *, cache_prompt: bool = False) -> Iterator[Comparison]:
        """One prompt, then the further turns of its conversation if it has any, after the plain answers.

        These are the same in every round, and so are the turns after them: even a sampled answer depends on nothing but
        prompt and seed.
        """
        following: Prompt | None = prompt
        while following is not None:
            yield (comparison := self.compare(following, order, cache_prompt=cache_prompt))
            following = following.answered(comparison.plain.text)

    def prefill(self, token_ids: list[int], *, cache_prompt: bool = False) -> None:
        """One prompt in every arm, for an answer of one token."""
        for params in self._params.values():
            self.llm.generate([token_ids], replace(params, cache_prompt=cache_prompt, max_tokens=1))
        if self.peer is not None:
            self.peer.decode(token_ids, 1)

    def _computing(self, arm: str, prompt: Prompt, *, keep: bool) -> SamplingParams:
        """Computes all of the prompt: under a new salt there is nothing to reuse. With `keep`, `_reusing` finds it."""
        if not keep:
            return replace(self._params[arm], cache_prompt=False)
        self._salts[prompt] = f"computed {next(self._number)}"
        return self._reusing(arm, prompt)

    def _reusing(self, arm: str, prompt: Prompt) -> SamplingParams:
        return replace(self._params[arm], cache_prompt=True, cache_salt=self._salts.get(prompt, ""))
