"""Pairs: one prompt decoded without drafting and with it, close together in time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from outrider.bench.prompt import Prompt, render
from outrider.errors import UsageError

if TYPE_CHECKING:
    from outrider import LLM, SamplingParams
    from outrider.bench.peer import LlamaCpp
    from outrider.engine.outputs import RequestOutput


@dataclass(frozen=True)
class Pair:
    """Both answers to one prompt, and the speed of the peer if there is one."""

    prompt: Prompt
    plain: RequestOutput
    drafted: RequestOutput
    peer_tokens_per_second: float | None = None

    @property
    def identical(self) -> bool:
        """Whether both answers have the same tokens and the same end."""
        return (self.plain.token_ids, self.plain.finish_reason) == (self.drafted.token_ids, self.drafted.finish_reason)

    @property
    def plain_tokens_per_second(self) -> float:
        """Decode speed without drafting; 0 for an answer of one token, which prefill gives."""
        return self.plain.stats.decode_tokens_per_second

    @property
    def mtp_tokens_per_second(self) -> float:
        """Decode speed with drafting; 0 for an answer of one token."""
        return self.drafted.stats.decode_tokens_per_second

    @property
    def decoded(self) -> bool:
        """Whether both answers have a decode speed."""
        return self.plain_tokens_per_second > 0 and self.mtp_tokens_per_second > 0


class PairDecoder:
    """A model, and a peer if there is one, with the same prompts.

    Args:
        sampling: of this engine's answers, which an end token may end before `max_tokens`; a prompt may add a grammar,
            tools and so on. The peer decodes `max_tokens` tokens greedily, and none of those hold it.
    """

    def __init__(self, llm: LLM, peer: LlamaCpp | None, sampling: SamplingParams) -> None:
        self.llm, self.peer, self.sampling = llm, peer, sampling
        # Both arms compute the prompt: what the first leaves in the prefix cache would change the second's prefill.
        self._alike = replace(sampling, cache_prompt=False)
        self.arms: tuple[str, ...] = ("plain", "drafted", *(("peer",) if peer else ()))

    def decode(self, prompt: Prompt, order: Sequence[str]) -> Pair:
        """One prompt in all arms, in the given order."""
        token_ids, drafted = render(prompt, self.llm, self._alike)
        params = {"plain": replace(drafted, draft="off"), "drafted": drafted}
        answers: dict[str, RequestOutput] = {}
        peer_speed = None
        for arm in order:
            if arm in params:
                answers[arm] = self.llm.generate([token_ids], params[arm])[0]
            elif self.peer is not None:
                peer_speed = self.peer.decode(token_ids, self.sampling.max_tokens)
        return Pair(prompt, answers["plain"], answers["drafted"], peer_speed)

    def converse(self, prompt: Prompt, order: Sequence[str]) -> Iterator[Pair]:
        """One prompt, then the later turns of its conversation, each after the plain answers before it."""
        following: Prompt | None = prompt
        while following is not None:
            yield (pair := self.decode(following, order))
            following = following.answered(pair.plain.text)


def longest_prompt(prompts: Sequence[Prompt], llm: LLM, sampling: SamplingParams) -> int:
    """Tokens of the longest prompt; of a later turn, the most with answers of `sampling.max_tokens` tokens.

    Called before anything is measured, so that no run fails after minutes.

    Raises:
        UsageError: a prompt does not fit into the context, or as `render`; the message names the prompt.
    """
    longest = 0
    for number, prompt in enumerate(prompts, 1):
        try:
            length, answers, following = len(render(prompt, llm, sampling)[0]), 0, prompt.answered("...")
            while following is not None:
                answers += 1
                length = len(render(following, llm, sampling)[0]) + answers * sampling.max_tokens
                following = following.answered("...")
            if length >= llm.context:
                raise UsageError(
                    f"turn {answers + 1} can have {length} tokens with the answers before it, and leaves no room in a "
                    f"context of {llm.context}: lower --max-tokens, or leave this prompt out"
                )
        except UsageError as error:
            begins = (prompt.text or prompt.messages[-1].content)[:40]
            raise UsageError(f"prompt {number} ({prompt.category}), {begins!r}...: {error}") from error
        longest = max(longest, length)
    return longest
