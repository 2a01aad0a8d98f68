"""What shared prefixes save: prompt tokens computed, and the time to the first token.

usage: python -m benchmarks.shared_prefixes MODEL [--rounds 3] [--only CASE]
Four cases: the second turn of a conversation whose thought was stripped; eight requests at once with one system prompt;
four equal prompts at once against one, in turns; a prompt read from a folder after a restart, against computing it. It
is computed once, and read by a model that is loaded anew in each round. Bound: computing is prefill's;
reading is the disk's and the hash's.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from outrider import LLM, SamplingParams

TEXT = Path(__file__).parent.parent / "docs" / "benchmark-text" / "ordinary.txt"
CONTEXT = 24576
CASES = ("thought", "clients", "answers", "restart")
ONE = SamplingParams(max_tokens=1, temperature=0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=CASES, action="append")
    arguments = parser.parse_args()
    cases = arguments.only or CASES
    with LLM(arguments.model, context=CONTEXT, drafter=None) as llm:
        tokens = llm.parts.engine.tokenizer.encode(TEXT.read_text("utf-8"))
        if "thought" in cases:
            stripped_thought(llm, tokens)
        if "clients" in cases:
            eight_clients(llm, tokens)
        if "answers" in cases:
            four_answers(llm, tokens, arguments.rounds)
    if "restart" in cases:
        restart(arguments.model, tokens, arguments.rounds)


def computed(llm: LLM, prompts: Sequence[list[int]]) -> tuple[int, int]:
    """Prompt tokens that requests at once compute, and all of them."""
    outputs = llm.generate(list(prompts), ONE)
    total = sum(map(len, prompts))
    return total - sum(output.stats.reused_tokens for output in outputs), total


def stripped_thought(llm: LLM, tokens: list[int]) -> None:
    """6,000 tokens, a thought of 600, an answer of 100; then the same without the thought, and 50 more."""
    history, thought, answer, question = tokens[:6000], tokens[8000:8600], tokens[9000:9100], tokens[9500:9550]
    llm.generate([history], ONE)  # a prompt ends where the model's turn begins
    llm.generate([history + thought + answer], ONE)
    found, total = computed(llm, [history + answer + question])
    print(f"second turn, thought stripped: {found:,} of {total:,} tokens computed")


def eight_clients(llm: LLM, tokens: list[int]) -> None:
    llm.parts.caches.clear()
    prompts = [tokens[:3000] + tokens[10_000 + 100 * client :][:40] for client in range(8)]
    found, total = computed(llm, prompts)
    print(f"eight requests, one system prompt of 3,000: {found:,} of {total:,} tokens computed")


def four_answers(llm: LLM, tokens: list[int], rounds: int) -> None:
    ratios = []
    for _ in range(rounds):
        seconds = []
        for count in (1, 4):
            llm.parts.caches.clear()
            started = time.perf_counter()
            llm.generate([tokens[:6000]] * count, ONE)
            seconds.append(time.perf_counter() - started)
        ratios.append(seconds[1] / seconds[0])
    print(f"four equal prompts of 6,000 against one: {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


def restart(model: str, tokens: list[int], rounds: int) -> None:
    prompt = tokens[:20_000]
    with tempfile.TemporaryDirectory() as folder:
        computing, *reading = [first_token(model, prompt, Path(folder)) for _ in range(1 + rounds)]
        files = [path.stat().st_size for path in Path(folder).iterdir()]
    seconds = f"{median(reading):.2f} s ({min(reading):.2f} to {max(reading):.2f}) from the folder"
    print(f"{len(prompt):,} tokens after a restart: {seconds}, {computing:.2f} s computed")
    print(f"the folder: {len(files)} files, {sum(files) / 1e6:.0f} MB")


def first_token(model: str, prompt: list[int], folder: Path) -> float:
    """Seconds to the first token, once the model is loaded anew with what is in the folder."""
    with LLM(model, context=CONTEXT, drafter=None, prefix_cache_dir=folder) as llm:
        started = time.perf_counter()
        llm.generate([prompt], ONE)
        return time.perf_counter() - started


if __name__ == "__main__":
    main()
