"""What shared prefixes save: prompt tokens computed, and the time to the first token.

usage: python -m benchmarks.shared_prefixes MODEL [--rounds 3]
Four cases: the second turn of a conversation whose thought was stripped; eight requests at once with one system prompt;
four equal prompts at once against one, in turns; a prompt read from a folder after a restart, against computing it.
Bound: computing is prefill's; reading is the disk's and the hash's.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

from outrider import LLM, SamplingParams

TEXT = Path(__file__).parent.parent / "docs" / "benchmark-text" / "ordinary.txt"
CONTEXT = 24576
ONE = SamplingParams(max_tokens=1, temperature=0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with LLM(arguments.model, context=CONTEXT, drafter=None) as llm:
        tokens = llm.parts.engine.tokenizer.encode(TEXT.read_text("utf-8"))
        stripped_thought(llm, tokens)
        eight_clients(llm, tokens)
        four_answers(llm, tokens, arguments.rounds)
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
    with tempfile.TemporaryDirectory() as folder:
        runs = [list(first_tokens(model, tokens[:20_000], Path(folder) / str(turn))) for turn in range(rounds)]
    computing, reading = (median(times) for times in zip(*runs, strict=True))
    print(f"20,000 tokens after a restart: {reading:.2f} s from the folder, {computing:.2f} s computed")


def first_tokens(model: str, prompt: list[int], folder: Path) -> Iterator[float]:
    """Seconds to the first token of a process that computes the prompt, and of the next one."""
    for _ in range(2):
        with LLM(model, context=CONTEXT, drafter=None, prefix_cache_dir=folder) as llm:
            started = time.perf_counter()
            llm.generate([prompt], ONE)
            yield time.perf_counter() - started


if __name__ == "__main__":
    main()
