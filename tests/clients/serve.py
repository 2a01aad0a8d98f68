"""Serves the stand-in or the demo until standard input ends: `python -m clients.serve stand-in|demo`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from clients.stand_in import CONTEXT, follow_script, save_stand_in
from serving import serving

from outrider import LLM


def main(name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        if name == "demo":
            llm = LLM("demo", context=8192)
        else:
            llm = LLM(save_stand_in(Path(folder)), context=CONTEXT, prefix_cache_bytes=256 << 20)
            follow_script(llm)
        with serving(llm, running=8, waiting=64) as (url, _):
            print(url, flush=True)
            sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1])
