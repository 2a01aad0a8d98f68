"""Where the time of one target pass goes, by kind of kernel call.

    python -m benchmarks.profile_pass MODEL [ROWS ...]

Each call's time is that of the first thread, with its wait for the others at the end.
"""

from __future__ import annotations

import sys
from collections import Counter

import numpy as np

from outrider import LLM
from outrider.backends.cpu.lowering import CpuExecutor
from outrider.engine.target import chain

PASSES = 10


def main(model: str, rows: list[int]) -> None:
    """Prints milliseconds by kind of call, one column per row count, row counts interleaved."""
    llm = LLM(model, lookup=False)
    executor, cache = llm.parts.target.forward.program, llm.parts.caches.new()
    assert isinstance(executor, CpuExecutor)
    program = executor.native
    context = list(range(100, 228))
    llm.parts.target.run([chain(cache, context, [len(context) - 1])])
    cache.commit(np.arange(len(context), dtype=np.int32))
    kinds = program.describe()
    spent = {count: Counter[str]() for count in rows}  # nanoseconds
    for _ in range(PASSES):
        for count in rows:
            batch = chain(cache, context[:count], list(range(count)))
            llm.parts.target.run([batch])
            program.profile(True)  # resets the counters
            llm.parts.target.run([batch])
            for kind, seconds in zip(kinds, program.seconds, strict=True):
                spent[count][kind] += round(1e9 * seconds / PASSES)
    program.profile(False)
    print(f"{'rows':16}" + "".join(f"{count:9}" for count in rows))
    for kind, _ in spent[rows[-1]].most_common():
        print(f"{kind:16}" + "".join(f"{spent[count][kind] / 1e6:9.3f}" for count in rows))
    print(f"{'all, ms':16}" + "".join(f"{spent[count].total() / 1e6:9.3f}" for count in rows))


if __name__ == "__main__":
    main(sys.argv[1], [int(count) for count in sys.argv[2:]] or [1, 2, 4, 8])
