"""A SIMULATION: how much faster decoding gets at a given chance that a drafted token is right.

usage: python -m benchmarks.acceptance_simulation MODEL DRAFTER [--against llama.cpp --peer-python PYTHON] [--rounds N]

For weights that say nothing (random ones at the shapes of a real model) no drafter is right. So a stand-in runs the
real drafter, step by step, for its time, and then proposes the token that is known to come with the chance p, else
another one. Everything else is real: passes, trees, controller, commits; the tokens are compared with plain decoding's.

Beside it, the same arithmetic for a chain of K drafts, with the K that is best for each: tokens (1 - p^(K+1)) / (1 - p)
in the time c(K + 1) of a pass over K + 1 rows, for outrider's measured c and for the peer's; drafts are taken as free
for both.
"""

from __future__ import annotations

import argparse
import random
from functools import partial
from itertools import chain
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from outrider import LLM, SamplingParams
from outrider.bench.interleave import interleaved
from outrider.bench.peers import Peer, open_peer
from outrider.bench.usual_pace import read_gauge
from outrider.drafters.mtp import MtpDrafter
from outrider.speculation.costs import VerifyCost

ACCEPTANCES = (0.5, 0.6, 0.7, 0.8)
ROWS = (1, 2, 3, 4, 5, 6, 8)
CONTEXT = 128
PROMPT = [2, *range(1000, 1100)]
TOKENS = 96


class StandIn(MtpDrafter):
    """Right with the chance `acceptance`, of which it is aware."""

    acceptance = 0.0
    answer: tuple[int, ...] = ()
    rng = random.Random(0)

    def _grow(self, chain: Any, _candidates: Any, _logits: Any) -> bool:
        place = len(chain.ask.sequence.tokens) + len(chain.path) - len(PROMPT)
        known = self.answer[place] if place < len(self.answer) else 0
        right = self.rng.random() < self.acceptance
        tokens = np.array([known if right else known ^ 1, known ^ 2, known ^ 3], np.int32)
        rest = (1 - self.acceptance) / 2
        return super()._grow(chain, tokens, np.log(np.array([self.acceptance, rest, rest], np.float32)))


def best_chain(cost: VerifyCost, p: float) -> tuple[float, int]:
    """(speed-up, K) of the best chain."""
    return max(((1 - p ** (k + 1)) / (1 - p) * cost(1) / cost(k + 1), k) for k in range(ROWS[-1]))


def measure_costs(llm: LLM, peer: Any, rounds: int) -> dict[str, VerifyCost]:
    """The cost curves, measured in turns."""
    arms: dict[tuple[str, int], Any] = {}
    for rows in ROWS:
        arms["outrider", rows] = lambda rows=rows: llm.measure.verify(rows, CONTEXT, 3)
        if peer:
            arms["llama.cpp", rows] = lambda rows=rows: peer.verify(rows, CONTEXT, 2)
    measured, _ = interleaved(arms, rounds, partial(read_gauge, llm, CONTEXT))
    names = ("outrider", "llama.cpp") if peer else ("outrider",)
    return {name: VerifyCost(list(ROWS), [median(chain(*measured[name, rows])) for rows in ROWS]) for name in names}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("drafter")
    parser.add_argument("--against", type=Peer)
    parser.add_argument("--peer-python", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    llm = LLM(arguments.model, drafter=arguments.drafter, lookup=False, context=4096)
    planner = llm.engine.planner
    mtp = planner.drafters[0]
    assert isinstance(mtp, MtpDrafter)
    stand_in = StandIn(mtp._drafting, llm.target.vocabulary)
    planner.drafters[0] = stand_in
    with open_peer(arguments.against, arguments.peer_python, llm) as peer:
        costs = measure_costs(llm, peer, arguments.rounds)
    for name, cost in costs.items():
        print(f"{name:10} c(M)/c(1): " + ", ".join(f"{rows}: {cost(rows) / cost(1):.2f}" for rows in ROWS))
    plain = SamplingParams(max_tokens=TOKENS, draft="off", ignore_end=True)
    drafted = SamplingParams(max_tokens=TOKENS, ignore_end=True)
    stand_in.answer = llm.generate([PROMPT], plain)[0].token_ids
    print("SIMULATED acceptance; speed-up over plain decoding: decoded for real / by arithmetic, the best chain")
    for p in ACCEPTANCES:
        stand_in.acceptance = p
        ratios, per_pass = [], []
        for _ in range(arguments.rounds):
            off, on = (llm.generate([PROMPT], params)[0] for params in (plain, drafted))
            if on.token_ids != off.token_ids:
                raise SystemExit("the tokens differ: this is a bug")
            ratios.append(on.stats.decode_tokens_per_second / off.stats.decode_tokens_per_second)
            per_pass.append(on.stats.tokens_per_pass)
        chains = "  ".join("{}: {:.2f} (K={})".format(name, *best_chain(cost, p)) for name, cost in costs.items())
        print(f"p={p}: {median(ratios):.2f} decoded, {median(per_pass):.2f} tokens per pass   {chains}", flush=True)


if __name__ == "__main__":
    main()
