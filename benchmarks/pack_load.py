"""Quantizing on load at Gemma 4 E2B's full shape: a synthetic bfloat16 folder, loaded twice.

usage: python -m benchmarks.pack_load FOLDER [--quantize q4_0|q8_0]
FOLDER is made if it is not there (9.3 GB, some minutes), the pack lands in the cache folder (3.7 GB). The first load is
bound by arithmetic (the search for each block's scale), the second by reading, hashing and packing the pack.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from pathlib import Path

from outrider import LLM, SamplingParams

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--quantize", choices=("q4_0", "q8_0"), default="q4_0")
    arguments = parser.parse_args()
    if not arguments.folder.exists():
        make(arguments.folder)
    for number in range(3):
        started = time.perf_counter()
        llm = LLM(arguments.folder, quantize=arguments.quantize, context=4096)
        seconds = time.perf_counter() - started
        packed = llm.parts.packed
        assert packed is not None
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(f"load {number + 1}: {seconds:.2f} s; error {packed.error:.2%}; at most {peak:.1f} GB", flush=True)
        if number == 0:
            answer = llm.generate([[2, 300, 400]], SamplingParams(max_tokens=32, ignore_end=True))[0]
            print(f"decoding {answer.stats.as_dict()['decode_tokens_per_second']:.1f} tokens/s")
        del llm


def make(folder: Path) -> None:
    """Writes the folder."""
    from published_configs import PUBLISHED
    from sized_checkpoints import save_folder

    folder.mkdir(parents=True)
    save_folder(PUBLISHED["gemma-4-E2B-it"][0], folder, vocabulary=262144)


if __name__ == "__main__":
    main()
