"""What each part and each constant of the controller is worth: decoding replayed without the model and without a clock.

usage: python -m benchmarks.controller_ablation MODEL TRACES [--prompts N] [--max-tokens N] [--orders N] [--only TEXT]

First the model decodes prompts without drafts, greedy and sampled, and at every position its MTP drafter proposes a
chain of eight tokens with alternatives; the recording is kept in the file TRACES and made only if that does not exist.
Then the planner decodes the same texts from the recording: its drafters, trees and learning are the real ones, and a
pass costs what a cost curve gives. The planner measures that with seeded noise, on a machine whose speed changes now
and then, so a figure here repeats to the last digit.

A row is a change to the controller, a column a cost curve: the speed with that change, relative to the speed without
it, as the geometric mean over all texts, and at worst over the kinds of text. "off" is plain decoding.
"""

from __future__ import annotations

import argparse
import pickle
import random
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass
from math import inf
from pathlib import Path
from statistics import geometric_mean
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from benchmarks.controller import unguessable
from outrider import LLM, SamplingParams
from outrider.arrays import Floats
from outrider.bench.suite import shipped_prompts
from outrider.drafters import mtp as mtp_module
from outrider.drafters.lookup import LookupDrafter
from outrider.drafters.mtp import MtpDrafter
from outrider.drafters.protocol import Ask, SequenceState
from outrider.speculation import budget, calibration, costs, planner
from outrider.speculation.costs import CURVE_ROWS, VerifyCost
from outrider.speculation.planner import DraftPlanner
from outrider.speculation.walk import walk

DEPTH = 8
CURVES = {  # c(M) / c(1), and seconds of a drafter's step / c(1)
    "nearly free": ([1.0, 1.02, 1.08, 1.25, 2.05], 0.05),
    "steep from 8": ([1.0, 1.14, 1.27, 2.08, 3.83], 0.12),
    "never free": ([1.0, 1.70, 2.30, 3.40, 5.20], 0.12),
    "never free, guessed": ([1.0, 1.70, 2.30, 3.40, 5.20], 0.12),
}
GUESS = [1.0, 1.08, 1.24, 1.56, 2.2]
"""The curve assumed where loading has no time to measure it; see `engine.measure`."""
Guesses = list[tuple[int, float]]


@dataclass
class Trace:
    """One text: by position, what each step of a drafter's chain proposed there."""

    kind: str
    draws: bool
    prompt: list[int]
    answer: list[int]
    chains: dict[int, list[Guesses]]


class _Raw:
    """The drafter's own probabilities."""

    def chance(self, _source: str, _features: object, guess: float) -> float:
        return guess

    def observe(self, *_: object) -> None:
        """Not learnt."""


class _Recorder(MtpDrafter):
    """Keeps what every step proposes."""

    steps: list[Guesses]

    def _guesses(self, chain: Any, candidates: Any, logits: Floats) -> Guesses:
        guesses = super()._guesses(chain, candidates, logits)
        self.steps.append(guesses)
        return guesses


def record(model: str, prompts: int, tokens: int) -> list[Trace]:
    """Decodes the prompts of every category, greedy and sampled."""
    llm = LLM(model, lookup=False)
    engine_planner = llm.parts.engine.planner
    own = engine_planner.drafters[0]
    assert isinstance(own, MtpDrafter)
    recorder = _Recorder(own._drafting, llm.parts.target.vocabulary)
    engine_planner.drafters[0] = recorder
    traces = []
    texts = [(prompt, t) for prompt in shipped_prompts(prompts) for t in (0.0, 0.8)]
    texts += [(prompt, 1.5) for prompt in unguessable(prompts)]
    for number, (prompt, temperature) in enumerate(texts):
        chains: dict[int, list[Guesses]] = {}

        def on_commit(request: Any, rows: Any, chains: dict[int, list[Guesses]] = chains) -> None:
            if len(rows.hidden) and not request.ended:
                recorder.steps = []
                ask = Ask(request.state, min(DEPTH, request.state.room - 1), _Raw(), fixed=True)
                recorder.propose([ask])
                chains[len(request.tokens)] = recorder.steps

        params = SamplingParams(max_tokens=tokens, temperature=temperature, seed=number, draft="off", ignore_end=True)
        with llm.parts.engine.observing(on_commit):
            out = llm.generate(prompt.text, params)[0]
        kind = f"{prompt.category}, {'sampled' if temperature else 'greedy'}"
        traces.append(Trace(kind, temperature > 0, list(out.prompt_token_ids), list(out.token_ids), chains))
        print(f"recorded {number + 1} of {len(texts)}: {kind}", flush=True)
    return traces


class _Replayed(MtpDrafter):
    """Proposes from a recording; `steps` counts its steps."""

    def __init__(self, seconds_per_step: float) -> None:
        program = SimpleNamespace(
            max_rows=16, prefetch_weights=lambda: None, write=lambda *_: None, read=lambda _hidden, rows: _Nothing(rows)
        )
        super().__init__(SimpleNamespace(program=program, ordering=(), hidden=0), 0)  # type: ignore[arg-type]
        self.seconds_per_step, self.steps = seconds_per_step, 0
        self.trace: Trace

    def propose(self, asks: Any) -> None:
        for ask in asks:
            self._hidden[ask.sequence.number] = _NO_STATE
        super().propose(asks)

    def _step(self, rows: Any) -> Any:
        self.steps += 1
        return [(None, None) for _ in rows]

    def _guesses(self, chain: Any, _candidates: Any, _logits: Any) -> Guesses:
        recorded = self.trace.chains.get(len(chain.ask.sequence.tokens), [])
        depth = len(chain.path)
        return recorded[depth][: mtp_module.BRANCHES] if depth < len(recorded) else []

    def _learn_cost(self, _seconds: float) -> None:
        """Not learnt: a step has a fixed cost here."""


class _Nothing(list):  # type: ignore[type-arg]
    """Hidden states, which the replay does not use."""

    def __init__(self, rows: int) -> None:
        super().__init__([0.0] * rows)

    def __getitem__(self, rows: Any) -> Any:
        return _Nothing(len(rows))


_NO_STATE: Any = [0.0]


def decode_all(traces: list[Trace], curve: str, setting: str | int, orders: int) -> dict[str, float]:
    """Kind of text -> tokens per second, as the geometric mean over several orders of the texts."""
    found: dict[str, list[float]] = defaultdict(list)
    for order in range(1 if setting == "off" else orders):
        shuffled = random.Random(order).sample(traces, len(traces))
        for kind, speed in decode_in_turn(shuffled, curve, setting, order).items():
            found[kind].append(speed)
    return {kind: geometric_mean(speeds) for kind, speeds in found.items()}


def decode_in_turn(traces: list[Trace], curve: str, setting: str | int, seed: int) -> dict[str, float]:
    """Kind of text -> tokens per second, all texts decoded one after another by one planner."""
    points, step = CURVES[curve]
    true, noise, slower = VerifyCost(list(CURVE_ROWS), list(points)), random.Random(seed), 1.0
    drafter = _Replayed(step)
    # Measured while loading, with an error.
    measured = GUESS if "guessed" in curve else [c * noise.uniform(0.95, 1.1) for c in points]
    started = VerifyCost(list(CURVE_ROWS), [max(measured[: i + 1]) for i in range(len(measured))])
    plan = DraftPlanner(started, [drafter, LookupDrafter()])
    seconds: dict[str, float] = defaultdict(float)
    tokens: dict[str, int] = defaultdict(int)
    for number, trace in enumerate(traces):
        text, end = [*trace.prompt, trace.answer[0]], len(trace.prompt) + len(trace.answer)
        chooser: Any = SimpleNamespace(draws=trace.draws, suppressed=frozenset())
        cache: Any = SimpleNamespace(length=0)
        sequence = SequenceState(number, text, cache, chooser, end, setting)  # type: ignore[arg-type]
        drafter.trace = trace
        plan.open(sequence)
        while len(text) < end:
            before = drafter.steps
            (draft,) = plan.propose([sequence])

            def emit(_node: int, text: list[int] = text, trace: Trace = trace, end: int = end) -> int | None:
                if len(text) == end:
                    return None
                text.append(trace.answer[len(text) - len(trace.prompt)])
                return text[-1]

            verdict = walk(draft, emit)
            drafting = (drafter.steps - before) * step
            took = true(1 + len(draft))
            if noise.random() < 0.01:
                slower = noise.uniform(0.8, 1.3)
            disturbed = slower * took * (2.5 if noise.random() < 0.03 else max(noise.gauss(1.0, 0.05), 0.8))
            plan.learn(sequence, draft, verdict)
            plan.learn_cost([draft], 0, disturbed, slower * drafting)
            seconds[trace.kind] += took + drafting
            tokens[trace.kind] += len(verdict.tokens)
        plan.close(sequence)
    return {kind: tokens[kind] / seconds[kind] for kind in tokens}


Change = list[tuple[Any, str, Any]]
CHANGES: dict[str, Change] = {}


def change(name: str, *patches: tuple[Any, str, Any]) -> None:
    """One row of the table."""
    CHANGES[name] = list(patches)


change("no bias per sequence", (calibration, "_BIAS_RATE", 0.0))
change("bias rate 0.15", (calibration, "_BIAS_RATE", 0.15))
change("chances remember 30 observations", (calibration, "_MEMORY", 30.0))
change("chances remember all", (calibration, "_MEMORY", inf))
change("prior weight 1", (calibration, "_PRIOR_WEIGHT", 1.0))
change("prior weight 16", (calibration, "_PRIOR_WEIGHT", 16.0))
change("no calibration of chances", (calibration.Calibration, "chance", lambda _s, _source, _f, guess: guess))
change("MTP: one branch", (mtp_module, "BRANCHES", 1))
change("MTP: two branches", (mtp_module, "BRANCHES", 2))
change("MTP: next step's chance always 0.6", (mtp_module._Chain, "expected", 0.6))
change("pace of the last 10 passes", (budget, "_PACE_MEMORY", 0.9))
change("pace of the last 200 passes", (budget, "_PACE_MEMORY", 0.995))
change("pace: plain decoding's", (budget.Pace, "at_least", lambda _s, plain: plain))
change("pace as it was near the end", (planner, "best_pace", lambda *_: inf))
change("no probes", (planner, "_FIRST_PROBE", 10**9))
change("probes every 8 passes", (planner, "_LAST_PROBE", 8))
change("probes every 32 passes", (planner, "_FIRST_PROBE", 32), (planner, "_LAST_PROBE", 32))
change("cost curve as measured at load", (costs, "_RATE", 0.0))
change("cost curve rate 0.05", (costs, "_RATE", 0.05))
change("cost: deviations not clipped", (costs, "_MOST_SURPRISE", inf))
change("cost: other points follow alike", (costs, "_ALIKE", 1.0))
change("cost: other points do not follow", (costs, "_ALIKE", 0.0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("traces", type=Path)
    parser.add_argument("--prompts", type=int, default=2, help="of each category")
    parser.add_argument("--max-tokens", type=int, default=80)
    parser.add_argument("--orders", type=int, default=2, help="orders of the texts that a figure is the mean of")
    parser.add_argument("--only", default="", help="changes that have this in their name")
    arguments = parser.parse_args()
    if not arguments.traces.exists():
        recorded = record(arguments.model, arguments.prompts, arguments.max_tokens)
        arguments.traces.write_bytes(pickle.dumps(recorded))
    # The file is this program's own.
    traces: list[Trace] = pickle.loads(arguments.traces.read_bytes())
    base = {curve: decode_all(traces, curve, "auto", arguments.orders) for curve in CURVES}
    plain = {curve: decode_all(traces, curve, "off", 1) for curve in CURVES}
    print(f"{'':42}" + "".join(f"{curve:>22}" for curve in CURVES))
    show("as it is, against plain decoding", base, plain)
    for length in (2, 4) if not arguments.only else ():
        show(f"fixed length {length}", {c: decode_all(traces, c, length, arguments.orders) for c in CURVES}, base)
    for name, patches in CHANGES.items():
        if arguments.only in name:
            with ExitStack() as stack:
                for where, what, value in patches:
                    stack.enter_context(patch.object(where, what, value))
                show(name, {c: decode_all(traces, c, "auto", arguments.orders) for c in CURVES}, base)


def show(name: str, changed: dict[str, dict[str, float]], against: dict[str, dict[str, float]]) -> None:
    """Prints a row."""
    cells = []
    for curve in CURVES:
        ratios = {kind: changed[curve][kind] / against[curve][kind] for kind in changed[curve]}
        cells.append(f"{geometric_mean(ratios.values()):8.3f} (least {min(ratios.values()):.3f})")
    print(f"{name:42}" + "".join(f"{cell:>22}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
