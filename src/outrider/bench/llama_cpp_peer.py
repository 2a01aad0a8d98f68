"""llama.cpp as a process that answers timed commands: the figures of llama-bench, one measurement at a time.

It runs in any Python with llama-cpp-python (tested with 0.3.36) and numpy, and imports nothing else, so that llama.cpp
can be built natively in a virtual environment of its own:

    PYTHON src/outrider/bench/llama_cpp_peer.py MODEL.gguf THREADS CONTEXT

Commands are JSON objects, one a line on standard input; answers go one a line to standard output. A failure ends the
process; standard error has the reason.

    {"op": "verify", "rows": M, "context": N, "repeat": R}   -> {"seconds": [of each of R passes over M rows]}
    {"op": "decode", "prompt": [ids], "tokens": n}           -> {"seconds": of n passes over one row}
    {"op": "prefill", "prompt": [ids]}                       -> {"seconds": of the prompt from an empty cache}

Everything is llama.cpp's own default but the thread counts and `swa_full`, without which a sliding layer cannot take
rows back.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from collections.abc import Sequence
from time import perf_counter
from typing import Any

import llama_cpp  # type: ignore[import-not-found]
import numpy as np


class Session:
    """One model, one context, and one sequence (id 0) of `length` tokens."""

    def __init__(self, path: str, threads: int, context: int) -> None:
        llama_cpp.llama_backend_init()
        model_params = llama_cpp.llama_model_default_params()
        model_params.n_gpu_layers = 0
        model_params.load_mode = llama_cpp.LLAMA_LOAD_MODE_MMAP
        model = llama_cpp.llama_model_load_from_file(os.fsencode(path), model_params)
        if not model:
            raise RuntimeError(f"llama.cpp cannot load {path}")
        params = llama_cpp.llama_context_default_params()
        params.n_ctx, params.n_threads, params.n_threads_batch = context, threads, threads
        params.swa_full = True
        self.context = llama_cpp.llama_init_from_model(model, params)
        if not self.context:
            raise RuntimeError(f"llama.cpp cannot make a context of {context} tokens for {path}")
        self.memory = llama_cpp.llama_get_memory(self.context)
        self.vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
        self.most_rows = int(params.n_batch)
        self.batch = llama_cpp.llama_batch_init(self.most_rows, 0, 1)
        self.length = 0
        self.prepared = -1  # the context that `verify` left in the cache

    def truncate(self, length: int) -> None:
        """Takes back all rows from position `length` on."""
        if not llama_cpp.llama_memory_seq_rm(self.memory, 0, length, -1):
            raise RuntimeError(f"llama.cpp cannot take rows back to position {length}")
        self.length, self.prepared = length, -1

    def forward(self, tokens: Sequence[int], *, all_logits: bool = False) -> float:
        """One pass; the seconds until its logits can be read, without filling the batch."""
        batch = self.batch
        batch.n_tokens = len(tokens)
        for row, token in enumerate(tokens):
            batch.token[row], batch.pos[row] = token, self.length + row
            batch.n_seq_id[row], batch.seq_id[row][0] = 1, 0
            batch.logits[row] = all_logits or row == len(tokens) - 1
        started = perf_counter()
        status = llama_cpp.llama_decode(self.context, batch)
        llama_cpp.llama_get_logits(self.context)  # waits for the pass to end
        seconds = perf_counter() - started
        if status != 0:
            raise RuntimeError(f"llama_decode failed with status {status} at {len(tokens)} rows")
        self.length += len(tokens)
        return seconds

    def extend(self, tokens: Sequence[int]) -> float:
        """Passes over all tokens; their seconds."""
        parts = (tokens[begin : begin + self.most_rows] for begin in range(0, len(tokens), self.most_rows))
        return sum(self.forward(part) for part in parts)

    def likeliest(self) -> int:
        """The token with the largest logit after a pass over one row."""
        address = ctypes.cast(llama_cpp.llama_get_logits(self.context), ctypes.c_void_p).value
        assert address is not None
        logits = (ctypes.c_float * self.vocabulary).from_address(address)
        return int(np.frombuffer(logits, np.float32).argmax())


def verify(session: Session, rows: int, context: int, repeat: int) -> list[float]:
    """Passes over `rows` rows after `context` tokens, each taken back again; one more comes first, uncounted."""
    tokens = [1000 + (index * 7919) % (min(session.vocabulary, 50_000) - 1000) for index in range(context + rows)]
    if session.prepared != context:
        session.truncate(0)
        session.extend(tokens[:context])
    seconds = []
    for _ in range(repeat + 1):
        seconds.append(session.forward(tokens[context:], all_logits=True))
        session.truncate(context)
    session.prepared = context
    return seconds[1:]


def decode(session: Session, prompt: list[int], tokens: int) -> float:
    """Greedy decode without an end token: the passes alone, without argmax and Python."""
    session.truncate(0)
    session.extend(prompt[:-1])
    token, seconds = prompt[-1], 0.0
    for _ in range(tokens):
        seconds += session.forward([token])
        token = session.likeliest()
    return seconds


def prefill(session: Session, prompt: list[int]) -> float:
    """A prompt from an empty cache."""
    session.truncate(0)
    return session.extend(prompt)


def main() -> None:
    model, threads, context = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    # Native code may print to descriptor 1: the answers get a descriptor of their own, and 1 becomes standard error.
    answers = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)
    session = Session(model, threads, context)
    commands: dict[str, Any] = {"verify": verify, "decode": decode, "prefill": prefill}
    print(json.dumps({"version": f"llama-cpp-python {llama_cpp.__version__}"}), file=answers)
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps({"seconds": commands[request.pop("op")](session, **request)}), file=answers)


if __name__ == "__main__":
    main()
