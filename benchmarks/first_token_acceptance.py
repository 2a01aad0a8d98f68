"""How often the MTP drafter's first choice for the next token is the target's own, greedy, by category of prompt.

usage: python -m benchmarks.first_token_acceptance MODEL [--drafter auto|PATH] [--prompts N] [--max-tokens N]
One token is drafted before every pass and lookup is off, so nothing is chosen by the controller: the plain measure of a
drafter, which its acceptance in a tree of several candidates (`outrider bench decode`) is not.
"""

from __future__ import annotations

import argparse

from outrider import LLM, SamplingParams
from outrider.bench.suite import DRAFTER_CATEGORIES, shipped_prompts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--drafter", default="auto")
    parser.add_argument("--prompts", type=int, default=20)
    parser.add_argument("--max-tokens", type=int, default=128)
    arguments = parser.parse_args()
    llm = LLM(arguments.model, drafter=arguments.drafter, lookup=False)
    params = SamplingParams(max_tokens=arguments.max_tokens, draft=1)
    drafted: dict[str, int] = dict.fromkeys(DRAFTER_CATEGORIES, 0)
    accepted: dict[str, int] = dict.fromkeys(DRAFTER_CATEGORIES, 0)
    for prompt in shipped_prompts(arguments.prompts):
        stats = llm.generate(prompt.text, params)[0].stats
        drafted[prompt.category] += stats.drafted
        accepted[prompt.category] += stats.accepted
    for category in DRAFTER_CATEGORIES:
        print(f"{category:16} {accepted[category] / max(drafted[category], 1):6.1%} of {drafted[category]}")
    print(f"{'all':16} {sum(accepted.values()) / max(sum(drafted.values()), 1):6.1%} of {sum(drafted.values())}")


if __name__ == "__main__":
    main()
