"""The draft-length controller against fixed lengths and against no drafting, on every prompt.

usage: python -m benchmarks.controller MODEL [--drafter PATH] [--prompts N] [--rounds N] [--max-tokens N]
           [--temperature T]

For each category: plain speed, the controller's speed, and that of the best fixed length chosen in hindsight, each a
median of per-prompt ratios to plain decoding of the same prompt, all arms close together in time. "unguessable" are
prompts of random characters, sampled at temperature 1.5, where drafting can only lose time.
"""

from __future__ import annotations

import argparse
import random
import string
from collections import defaultdict
from statistics import geometric_mean, median
from typing import Literal, TypeAlias

from outrider import LLM, SamplingParams
from outrider.bench.interleave import turns
from outrider.bench.prompt import Prompt
from outrider.bench.suite import shipped_prompts

Arm: TypeAlias = Literal["auto", "off"] | int
LENGTHS = (1, 2, 3, 4, 6, 8, 12, 15)
UNGUESSABLE = "unguessable"


def unguessable(count: int) -> list[Prompt]:
    """Prompts of random printable characters."""
    rng = random.Random(0)
    return [Prompt(UNGUESSABLE, "".join(rng.choices(string.printable[:94], k=200))) for _ in range(count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--drafter")
    parser.add_argument("--prompts", type=int, default=4, help="of each category")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--temperature", type=float, default=0.0)
    arguments = parser.parse_args()
    # Two engines: the controller must learn from its own drafts alone.
    own, fixed = (LLM(arguments.model, drafter=arguments.drafter) for _ in range(2))
    prompts = [*shipped_prompts(arguments.prompts), *unguessable(arguments.prompts)]
    arms: tuple[Arm, ...] = ("off", "auto", *LENGTHS)
    ratios: dict[str, dict[object, list[float]]] = defaultdict(lambda: defaultdict(list))
    speeds: dict[str, list[float]] = defaultdict(list)
    for number, order in enumerate(turns(arms, (arguments.rounds + 1) * len(prompts))):
        if number < len(prompts) and number % arguments.prompts:
            continue  # the first round warms up: one prompt of each category
        prompt = prompts[number % len(prompts)]
        temperature = 1.5 if prompt.category == UNGUESSABLE else arguments.temperature
        params = {"max_tokens": arguments.max_tokens, "temperature": temperature, "seed": number % len(prompts)}
        speed = {}
        for arm in order:
            llm = own if arm == "auto" else fixed
            out = llm.generate(prompt.text, SamplingParams(**params, draft=arm))[0]
            speed[arm] = out.stats.decode_tokens_per_second
        if number >= len(prompts) and speed["off"]:
            speeds[prompt.category].append(speed["off"])
            for arm in arms:
                ratios[prompt.category][arm].append(speed[arm] / speed["off"])
    print(f"{'category':18}{'plain':>8}{'auto':>7}{'best fixed':>12}{'K':>4}{'auto/best':>11}   by length")
    all_of = []
    for category, of in ratios.items():
        by_length = {length: median(of[length]) for length in LENGTHS}
        best = max(by_length, key=by_length.__getitem__)
        auto = median(of["auto"])
        # The ratio of pairs: both arms decoded the same prompt close together in time.
        paired = median(a / b for a, b in zip(of["auto"], of[best], strict=True))
        listed = " ".join(f"{length}:{ratio:.2f}" for length, ratio in by_length.items())
        row = f"{category:18}{median(speeds[category]):8.1f}{auto:7.2f}{by_length[best]:12.2f}{best:4}{paired:11.3f}"
        print(f"{row}   {listed}")
        if category != UNGUESSABLE:
            all_of.append((auto, by_length[best]))
    ours, others = (geometric_mean(column) for column in zip(*all_of, strict=True))
    print(f"all but unguessable, geometric mean: auto {ours:.2f}, best fixed {others:.2f}, {ours / others:.3f}")


if __name__ == "__main__":
    main()
