"""Cost of drafting: a step of the MTP drafter against a target pass, and a pass over a tree against a chain's.

usage: python -m benchmarks.mtp_costs MODEL DRAFTER [--context N] [--rounds N]

A round runs a plain pass, then a draft of four steps, as decoding does: the first step finds caches that the target's
weights have swept. All arms take turns; medians.
"""

from __future__ import annotations

import argparse
import time
from statistics import median

from outrider import LLM
from outrider.drafters.mtp import MtpDrafter
from outrider.engine.target import Rows

STEPS = 4
TREES = {
    "two chains": lambda row: max(row - 2, -1),
    "each node two": lambda row: (row - 1) // 2 if row else -1,
    "all from one": lambda row: 0 if row else -1,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("drafter")
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=25)
    arguments = parser.parse_args()
    llm = LLM(arguments.model, drafter=arguments.drafter, context=4096)
    mtp = llm.parts.engine.planner.drafters[0]
    assert isinstance(mtp, MtpDrafter)
    llm.parts.measure.verify(1, arguments.context, 1)
    cache = llm.parts.measure.cache_of(arguments.context)
    # Any hidden state will do: the time does not depend on it.
    mtp._drafting.program.write(mtp._drafting.hidden, llm.parts.target.hidden(1))
    plain: list[float] = []
    steps: list[list[float]] = [[] for _ in range(STEPS)]
    shapes = {"chain": lambda row: row - 1, **TREES}
    passes: dict[tuple[str, int], list[float]] = {(shape, rows): [] for rows in (4, 8, 16) for shape in shapes}
    for number in range(arguments.rounds):
        plain += llm.parts.measure.verify(1, arguments.context, 2)
        for step in range(STEPS):
            started = time.perf_counter()
            mtp._step([(17 + number, cache)])
            steps[step].append(time.perf_counter() - started)
        for (shape, rows), seconds in passes.items():
            parents = [shapes[shape](row) for row in range(rows)]
            batch = Rows(cache, [100 + 7 * row for row in range(rows)], parents, list(range(rows)))
            seconds.append(llm.parts.target.run([batch]).seconds)
    one = median(plain)
    print(f"{llm.path.name}, context {arguments.context}, {llm.parts.threads} threads")
    print(f"plain pass                {1e3 * one:8.3f} ms")
    for step, seconds in enumerate(steps, start=1):
        share = median(seconds) / one
        print(f"drafter, step {step} of a round {1e3 * median(seconds):7.3f} ms  {share:8.2%} of a plain pass")
    for (shape, rows), seconds in passes.items():
        against = median(s / c for s, c in zip(seconds, passes["chain", rows], strict=True))
        print(f"{rows:3} rows, {shape:14}   {1e3 * median(seconds):8.3f} ms  {against - 1:+8.2%} of the chain")


if __name__ == "__main__":
    main()
