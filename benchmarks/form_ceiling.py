"""How far drafts from a grammar can go: tokens per pass if it proposed every token right where it is no free text.

usage: python -m benchmarks.form_ceiling MODEL [--category NAME]... [--prompts N] [--max-tokens N] [--temperature T]
Each prompt is answered without drafting, with drafting, and with a drafter in the grammar's place that reads the known
answer wherever the grammar allows at most 2048 tokens. Their tokens have to be equal. Free text is left to the others.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from outrider import LLM, SamplingParams
from outrider.bench.prompt import PromptFormat, format_for, render
from outrider.bench.suite import choose_prompts
from outrider.drafters.protocol import Ask, Drafter
from outrider.drafters.tree import ROOT
from outrider.sampling.constraint import Constraint

_FREE = 2048
_CERTAIN = 0.99


class Oracle(Drafter):
    """Proposes the known answer up to the next token of free text."""

    name = "grammar"

    def __init__(self) -> None:
        self.answer: Sequence[int] = ()
        self.free: Sequence[bool] = ()
        self.prompt_length = 0

    def propose(self, asks: Sequence[Ask]) -> None:
        for ask in asks:
            first, parent = len(ask.sequence.tokens) - self.prompt_length, ROOT
            for token, free in zip(self.answer[first:][: ask.budget], self.free[first:], strict=False):
                if free:
                    break
                parent = ask.draft.add(parent, token, _CERTAIN, self.name, (0,))


def free_places(constraint: Constraint, answer: Sequence[int]) -> list[bool]:
    """Whether each token of the answer stands where the grammar allows more than a few."""
    free = []
    for token in answer:
        free.append(bool(np.count_nonzero(constraint.mask()) > _FREE))
        constraint.push(token)
    return free


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--category", action="append", help="may be repeated", default=[])
    parser.add_argument("--prompts", type=int, default=20, help="of each category")
    parser.add_argument("--max-tokens", type=int, default=400)
    parser.add_argument("--temperature", type=float, default=0.0)
    arguments = parser.parse_args()
    llm, oracle, sums = LLM(arguments.model), Oracle(), Counter[str]()
    planner, ends = llm.parts.engine.planner, llm.config.end_token_ids
    drafters = planner.drafters
    known = [oracle if drafter.name == oracle.name else drafter for drafter in drafters]
    sampling = SamplingParams(
        max_tokens=arguments.max_tokens, temperature=arguments.temperature, cache_prompt=False, seed=1
    )
    choose = choose_prompts("shipped", arguments.category or ["tool-calls", "schemas"], arguments.prompts)
    for prompt in choose(format_for(llm, PromptFormat.auto)):
        ids, params = render(prompt, llm, sampling)
        plain = llm.generate([ids], replace(params, draft="off"))[0]
        assert params.grammar is not None, "each of these prompts has a grammar or a demanded call"
        oracle.answer, oracle.prompt_length = plain.token_ids, len(ids)
        oracle.free = free_places(llm.parts.grammars.constraint(params.grammar, ends), plain.token_ids)
        sums["tokens"] += len(oracle.free)
        sums["free"] += sum(oracle.free)
        for name, using in ("drafting", drafters), ("ceiling", known):
            planner.drafters = using
            output = llm.generate([ids], params)[0]
            if output.token_ids != plain.token_ids:
                raise SystemExit(f"the tokens differ for the prompt {prompt}: this is a bug in outrider")
            sums[f"{name} tokens"] += output.stats.decoded_tokens
            sums[f"{name} passes"] += output.stats.target_passes
            sums[f"{name} rows"] += output.stats.target_passes + output.stats.drafted
    print(f"free text: {sums['free'] / sums['tokens']:.0%} of {sums['tokens']} tokens")
    for name in "drafting", "ceiling":
        passes = sums[f"{name} passes"]
        tokens, rows = sums[f"{name} tokens"] / passes, sums[f"{name} rows"] / passes
        print(f"{name:8}  {tokens:5.2f} tokens per pass, {rows:5.2f} rows")


if __name__ == "__main__":
    main()
