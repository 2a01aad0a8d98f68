"""Passes and prefill on several instruction sets, interleaved in one process on the same packed weights.

usage: python -m benchmarks.instruction_sets MODEL [--sets amx,avx512-vnni] [--rows 1,8,12,16] [--tokens 512]
       [--rounds 9] [--processor-time]
MODEL is a file or a published size, as in benchmarks.long_context. --processor-time: one thread, by its processor time,
which other processes on the same cores disturb less.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import geometric_mean

from benchmarks.long_context import Bench, opened
from outrider.backends import cpu
from outrider.bench.interleave import estimate, interleaved
from outrider.cores import cores
from outrider.quant import WeightStore

_CONTEXT = 128
_PASSES = 3
"""Passes of a turn: the fastest counts, as the first finds in the caches what the turn before left there."""


def main() -> None:
    """Prints milliseconds, and the speed against the last set with its interval."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--sets", default=",".join(cpu.instruction_sets()[:2]))
    parser.add_argument("--rows", default="1,8,12,16")
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--processor-time", action="store_true")
    arguments = parser.parse_args()
    sets, counts = arguments.sets.split(","), [int(rows) for rows in arguments.rows.split(",")]
    if unknown := set(sets) - set(cpu.instruction_sets()):
        parser.error(f"this machine has {', '.join(cpu.instruction_sets())}, not {', '.join(sorted(unknown))}")
    pool = cpu.ThreadPool(1 if arguments.processor_time else cores().threads)
    clock = time.thread_time if arguments.processor_time else time.perf_counter
    config, tensors, _ = opened(arguments.model)
    bench = Bench(config, WeightStore(tensors, pool), None, pool, "int8")
    cache = bench.filled(_CONTEXT)

    def seconds(call: Callable[[], object]) -> float:
        started = clock()
        call()
        return clock() - started

    def turn(instruction_set: str, rows: int) -> float:
        cpu.choose_instruction_set(instruction_set)
        if rows == 0:
            return seconds(lambda: bench.prefill(arguments.tokens))
        return min(seconds(lambda: bench.verify(cache, rows)) for _ in range(_PASSES))

    cases = [*counts, *([0] if arguments.tokens else [])]
    arms = {(rows, name): lambda rows=rows, name=name: turn(name, rows) for rows in cases for name in sets}
    interleaved(arms, 1)  # not counted: the first touches everything
    spent = interleaved(arms, arguments.rounds)
    print(f"{arguments.model}, {pool.size} threads, {arguments.rounds} rounds; speed against {sets[-1]}")
    for rows, name in arms:
        pairs = zip(spent[rows, sets[-1]], spent[rows, name], strict=True)
        ratio, (low, high) = estimate([[other / own] for other, own in pairs])
        milliseconds = 1e3 * geometric_mean(spent[rows, name])
        what = f"{rows} rows" if rows else f"prefill of {arguments.tokens}"
        print(
            f"{what:>15} {name:>12} {milliseconds:8.2f} ms, {1e3 * min(spent[rows, name]):8.2f} at best, "
            f"{ratio:.2f} times as fast ({low:.2f} to {high:.2f})",
            flush=True,
        )


if __name__ == "__main__":
    main()
