"""What a source of drafts is worth: passes and tokens per pass with it and without it, by category of prompt.

usage: python -m benchmarks.source_ablation MODEL SOURCE... [--category NAME]... [--prompts N] [--max-tokens N]
           [--temperature T]
The model is loaded a second time without the kinds of drafter that are named (see `drafters.registry`). Both decode the
shipped prompts of the categories in turns; their tokens have to be equal.
"""

from __future__ import annotations

import argparse
from collections import Counter
from unittest.mock import patch

from outrider import LLM, SamplingParams
from outrider.bench.agent_prompts import AGENT_CATEGORIES
from outrider.bench.prompt import PromptFormat, format_for, render
from outrider.bench.suite import choose_prompts
from outrider.drafters import registry


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("source", nargs="+", choices=[kind.name for kind in registry.KINDS])
    parser.add_argument("--category", action="append", help="may be repeated", default=[])
    parser.add_argument("--prompts", type=int, default=20, help="of each category")
    parser.add_argument("--max-tokens", type=int, default=400)
    parser.add_argument("--temperature", type=float, default=0.0)
    arguments = parser.parse_args()
    choose = choose_prompts("shipped", arguments.category or AGENT_CATEGORIES, arguments.prompts)
    sampling = SamplingParams(
        max_tokens=arguments.max_tokens, temperature=arguments.temperature, cache_prompt=False, seed=1
    )
    every = LLM(arguments.model)
    fewer = [kind for kind in registry.KINDS if kind.name not in arguments.source]
    with patch.object(registry, "KINDS", fewer):
        without = LLM(arguments.model)
    tokens, passes, more = Counter[str](), Counter[str](), Counter[str]()
    for prompt in choose(format_for(every, PromptFormat.auto)):
        ids, params = render(prompt, every, sampling)
        one, other = (llm.generate([ids], params)[0] for llm in (every, without))
        if one.token_ids != other.token_ids:
            raise SystemExit(f"the tokens differ for the prompt {prompt}: this is a bug in outrider")
        for name in prompt.category, "all":
            tokens[name] += one.stats.decoded_tokens
            passes[name] += one.stats.target_passes
            more[name] += other.stats.target_passes
    left_out = ", ".join(arguments.source)
    print(f"passes without {left_out}, as a multiple of those with it; tokens per pass without and with it")
    for name in [*(name for name in tokens if name != "all"), "all"]:
        ratio, few, many = more[name] / passes[name], tokens[name] / more[name], tokens[name] / passes[name]
        print(f"{name:16} {ratio:5.2f} times   {few:5.2f} -> {many:5.2f} tokens per pass")


if __name__ == "__main__":
    main()
