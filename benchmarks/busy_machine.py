"""Decoding while other processes keep cores busy: its speed with 0, 1, 2 ... of them, in turns.

usage: python -m benchmarks.busy_machine MODEL [--processes 2] [--tokens 96] [--rounds 9] [--threads N]
Each of the other processes spins at the same priority. Decoding is plain, greedy, at a short context. Bound: n threads
and k others share the cores c evenly, so of their time min(1, c / (n + k)) is left, of two threads on two cores 2/3
beside one and 1/2 beside two; memory-bound decoding loses less. Nothing else may run.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

from outrider import LLM, SamplingParams
from outrider.cores import cores

PROMPT = "The three most important inventions of the nineteenth century were"
_SETTLE_SECONDS = 0.2
"""Until the scheduler has distributed the processes."""


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """Processes that spin."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    time.sleep(_SETTLE_SECONDS)
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--processes", type=int, default=2, help="the most other processes")
    parser.add_argument("--tokens", type=int, default=96, help="of a turn")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=cores().threads)
    arguments = parser.parse_args()
    llm = LLM(arguments.model, drafter=None, lookup=False, threads=arguments.threads)
    tokens = arguments.tokens
    params = SamplingParams(max_tokens=tokens, min_tokens=tokens, temperature=0.0, draft="off")
    speeds: dict[int, list[float]] = {count: [] for count in range(arguments.processes + 1)}
    for turn in range(arguments.rounds + 1):
        for count, measured in speeds.items():
            with busy(count):
                stats = llm.generate([PROMPT], params)[0].stats
            if turn:  # the first touches everything
                measured.append(stats.decode_tokens_per_second)
    alone = median(speeds[0])
    print(f"{llm.path.name}, {arguments.threads} threads, {cores().most} cores, {arguments.rounds} rounds")
    for count, measured in speeds.items():
        low, high = min(measured) / alone, max(measured) / alone
        print(
            f"beside {count}: {median(measured):6.1f} tok/s, {median(measured) / alone:.2f} ({low:.2f} to {high:.2f})"
        )


if __name__ == "__main__":
    main()
