"""llama.cpp as a measuring partner: one process that loads a GGUF file and answers timed commands.

It runs in any Python that has llama-cpp-python (tested with 0.3.36) and numpy, and imports nothing else, so that the
peer can be built natively in a virtual environment of its own:

    PYTHON src/outrider/bench/llama_cpp_peer.py MODEL.gguf --threads 2

Commands come as one JSON object a line on standard input, answers go one a line to standard output. The process stays
alive between commands, so a caller can alternate its own measurements with these. Times are taken in here, around
``llama_decode`` and the call that hands out the logits; neither JSON nor the pipe is in them.

    {"op": "verify", "rows": M, "context": N, "repeat": R}   -> {"seconds": [R floats]}
    {"op": "decode", "prompt": [...], "tokens": n}           -> {"tokens": [n ids], "seconds": s, "pass_seconds": s,
                                                                 "prefill_seconds": s}
    {"op": "prefill", "tokens": [...], "repeat": R}          -> {"seconds": [R floats], "next": id}
    {"op": "perplexity", "tokens": [...], "window": W}       -> {"log_probs": [a float for each token], "seconds": s}
    {"op": "tokenize", "text": "..."}                        -> {"tokens": [...]}  (no BOS, special tokens not parsed)
    {"op": "close"}                                          -> {}

The first line out says what was loaded; a command that fails answers ``{"error": "..."}`` and the process goes on.

Everything is llama.cpp's own default (memory-mapped file, weights repacked where it has a layout for them, flash
attention "auto", f16 cache) except the thread counts. ``swa_full`` stays on: without it a sliding layer forgets rows
that fell out of its window, and taking rows back would be refused.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import sys
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

try:
    import llama_cpp  # type: ignore[import-not-found]
    import numpy as np
except ModuleNotFoundError as missing:
    print(json.dumps({"error": str(missing), "missing": missing.name}), flush=True)
    sys.exit(3)

# Rows whose logits are asked for in one pass while scoring: 128 rows of 262144 float32 logits are 134 MB.
SCORED_ROWS = 128
FLASH_ATTENTION = {"auto": -1, "off": 0, "on": 1}


class Session:
    """One model, one context, one sequence (id 0), and the list of tokens whose keys and values are in its cache."""

    def __init__(self, path: str, *, threads: int, threads_batch: int, context: int, flash_attention: str) -> None:
        llama_cpp.llama_backend_init()
        model_params = llama_cpp.llama_model_default_params()
        model_params.n_gpu_layers = 0
        model_params.load_mode = llama_cpp.LLAMA_LOAD_MODE_MMAP
        self.model = llama_cpp.llama_model_load_from_file(os.fsencode(path), model_params)
        if not self.model:
            raise RuntimeError(f"llama.cpp cannot load {path}: {log_tail()}")
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = context
        params.n_threads = threads
        params.n_threads_batch = threads_batch
        params.flash_attn_type = FLASH_ATTENTION[flash_attention]
        params.swa_full = True
        self.context = llama_cpp.llama_init_from_model(self.model, params)
        if not self.context:
            raise RuntimeError(f"llama.cpp cannot make a context of {context} tokens for {path}: {log_tail()}")
        self.memory = llama_cpp.llama_get_memory(self.context)
        self.vocab = llama_cpp.llama_model_get_vocab(self.model)
        self.vocab_size = llama_cpp.llama_vocab_n_tokens(self.vocab)
        self.bos_token_id = llama_cpp.llama_vocab_bos(self.vocab)
        self.context_length = context
        self.batch_limit = int(params.n_batch)
        self.batch = llama_cpp.llama_batch_init(self.batch_limit, 0, 1)
        self.tokens: list[int] = []

    # -- the cache -----------------------------------------------------------------------------------------------

    def truncate(self, length: int) -> None:
        """Take back all rows from position ``length`` on."""
        if not llama_cpp.llama_memory_seq_rm(self.memory, 0, length, -1):
            raise RuntimeError(f"llama.cpp cannot take rows back to position {length}; is swa_full off?")
        del self.tokens[length:]

    def rewind_to(self, tokens: Sequence[int]) -> None:
        """Make the cache hold exactly ``tokens``, computing only what follows the longest common prefix."""
        common = 0
        for held, wanted in zip(self.tokens, tokens, strict=False):
            if held != wanted:
                break
            common += 1
        self.truncate(common)
        self.extend(tokens[common:])

    def extend(self, tokens: Sequence[int]) -> None:
        """Append ``tokens`` in passes of up to n_batch rows; only the last row's logits are computed."""
        for start in range(0, len(tokens), self.batch_limit):
            piece = tokens[start : start + self.batch_limit]
            self.fill(piece, all_logits=False)
            self.forward(piece)

    # -- one pass ------------------------------------------------------------------------------------------------

    def fill(self, tokens: Sequence[int], *, all_logits: bool) -> None:
        """Write the rows of the next pass into the batch; kept apart from ``forward`` so that it is never timed."""
        if len(self.tokens) + len(tokens) > self.context_length:
            wanted = len(self.tokens) + len(tokens)
            raise RuntimeError(f"{wanted} tokens do not fit in a context of {self.context_length}; raise --context")
        batch = self.batch
        batch.n_tokens = len(tokens)
        for row, token in enumerate(tokens):
            batch.token[row] = token
            batch.pos[row] = len(self.tokens) + row
            batch.n_seq_id[row] = 1
            batch.seq_id[row][0] = 0
            batch.logits[row] = all_logits
        batch.logits[len(tokens) - 1] = True

    def forward(self, tokens: Sequence[int]) -> float:
        """Run the filled batch of ``tokens``; the seconds until the logits can be read."""
        start = perf_counter()
        status = llama_cpp.llama_decode(self.context, self.batch)
        llama_cpp.llama_get_logits(self.context)  # waits for the pass to end
        seconds = perf_counter() - start
        if status != 0:
            raise RuntimeError(f"llama_decode failed with status {status} at {len(tokens)} rows: {log_tail()}")
        self.tokens.extend(tokens)
        return seconds

    def logits(self, rows: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        """The logits of the last pass, (rows, vocab_size) float32; a view that the next pass overwrites."""
        pointer = llama_cpp.llama_get_logits(self.context)
        address = ctypes.cast(pointer, ctypes.c_void_p).value
        if address is None:
            raise RuntimeError("llama.cpp has no logits to give")
        buffer = (ctypes.c_float * (rows * self.vocab_size)).from_address(address)
        return np.frombuffer(buffer, np.float32).reshape(rows, self.vocab_size)

    def close(self) -> None:
        llama_cpp.llama_batch_free(self.batch)
        llama_cpp.llama_free(self.context)
        llama_cpp.llama_model_free(self.model)


# -- commands ----------------------------------------------------------------------------------------------------


def arbitrary_tokens(count: int, vocab_size: int) -> list[int]:
    """A fixed run of ordinary-looking ids: timing does not depend on which, but every run should use the same."""
    return [1000 + (index * 7919) % (min(vocab_size, 50_000) - 1000) for index in range(count)]


def verify(session: Session, *, rows: int, context: int, repeat: int, warmup: int = 1) -> dict[str, Any]:
    """Time passes over ``rows`` tokens after ``context`` tokens, logits for every row, each taken back again."""
    tokens = arbitrary_tokens(context + rows, session.vocab_size)
    session.rewind_to(tokens[:context])
    seconds = []
    for _ in range(warmup + repeat):
        session.fill(tokens[context:], all_logits=True)
        seconds.append(session.forward(tokens[context:]))
        session.truncate(context)
    return {"seconds": seconds[warmup:]}


def decode(session: Session, *, prompt: list[int], tokens: int) -> dict[str, Any]:
    """Decode ``tokens`` tokens greedily, one pass each; the first pass feeds the last prompt token.

    End tokens do not stop it, so that every run does the same number of passes. ``seconds`` is the whole loop,
    ``pass_seconds`` only the passes in it, without the argmax and the Python around it.
    """
    if not prompt:
        raise ValueError("decode needs at least one prompt token")
    session.truncate(0)
    start = perf_counter()
    session.extend(prompt[:-1])
    prefill_seconds = perf_counter() - start
    token = prompt[-1]
    generated: list[int] = []
    pass_seconds = 0.0
    start = perf_counter()
    for _ in range(tokens):
        session.fill([token], all_logits=False)
        pass_seconds += session.forward([token])
        token = int(session.logits(1)[0].argmax())
        generated.append(token)
    seconds = perf_counter() - start
    return {
        "tokens": generated,
        "seconds": seconds,
        "pass_seconds": pass_seconds,
        "prefill_seconds": prefill_seconds,
    }


def prefill(session: Session, *, tokens: list[int], repeat: int = 1, warmup: int = 0) -> dict[str, Any]:
    """Time the processing of a prompt from an empty cache, with the logits of its last token only."""
    if not tokens:
        raise ValueError("prefill needs at least one token")
    seconds = []
    for _ in range(warmup + repeat):
        session.truncate(0)
        elapsed = 0.0
        for first in range(0, len(tokens), session.batch_limit):
            piece = tokens[first : first + session.batch_limit]
            session.fill(piece, all_logits=False)
            elapsed += session.forward(piece)
        seconds.append(elapsed)
    return {"seconds": seconds[warmup:], "next": int(session.logits(1)[0].argmax())}


def perplexity(session: Session, *, tokens: list[int], window: int) -> dict[str, Any]:
    """log p(token | tokens before it in its window): windows of ``window`` rows, each fresh and begun by BOS.

    BOS takes one row of a window, so a window holds ``window - 1`` of the text's tokens, all of which are scored.
    """
    if window < 2:
        raise ValueError(f"a window of {window} rows holds no token beside BOS; use 2 or more")
    log_probs: list[float] = []
    begin = perf_counter()
    for first in range(0, len(tokens), window - 1):
        scored = tokens[first : first + window - 1]
        fed = [session.bos_token_id, *scored[:-1]]
        session.truncate(0)
        for start in range(0, len(fed), SCORED_ROWS):
            piece = fed[start : start + SCORED_ROWS]
            session.fill(piece, all_logits=True)
            session.forward(piece)
            log_probs += log_probabilities(session.logits(len(piece)), scored[start : start + SCORED_ROWS])
    return {"log_probs": log_probs, "seconds": perf_counter() - begin}


def log_probabilities(logits: np.ndarray[Any, np.dtype[np.float32]], targets: Sequence[int]) -> list[float]:
    """log softmax(logits)[target] for each row; the sum over the vocabulary is taken in float64.

    logits  (rows, vocab_size) float32
    """
    result = []
    for row, target in zip(logits, targets, strict=True):
        peak = row.max()
        total = np.exp(row - peak).sum(dtype=np.float64)
        result.append(float(row[target] - peak) - float(np.log(total)))
    return result


def tokenize(session: Session, *, text: str) -> dict[str, Any]:
    """The ids of ``text`` without BOS; what looks like a special token is read as text."""
    encoded = text.encode()
    room = len(encoded) + 8
    ids = (llama_cpp.llama_token * room)()
    count = llama_cpp.llama_tokenize(session.vocab, encoded, len(encoded), ids, room, False, False)
    if count < 0:
        raise RuntimeError(f"llama_tokenize needs room for {-count} tokens and had {room}")
    return {"tokens": list(ids[:count])}


COMMANDS: dict[str, Callable[..., dict[str, Any]]] = {
    "verify": verify,
    "decode": decode,
    "prefill": prefill,
    "perplexity": perplexity,
    "tokenize": tokenize,
}


def answer(session: Session, request: dict[str, Any]) -> dict[str, Any]:
    """Run one command; whatever goes wrong in it is the answer."""
    op = request.pop("op", None)
    if op not in COMMANDS:
        return {"error": f"unknown op {op!r}; known: {', '.join(COMMANDS)}, close"}
    try:
        return COMMANDS[op](session, **request)
    except (RuntimeError, ValueError, TypeError) as problem:
        return {"error": f"{op}: {problem}"}


# -- llama.cpp's log, and the process --------------------------------------------------------------------------------

_log: list[str] = []


def _keep_log(_level: int, text: bytes, _user_data: ctypes.c_void_p) -> None:
    """Keep the last lines, so that a failure can say why; printing them would drown the caller's own output."""
    _log.append(text.decode("utf-8", "replace"))
    del _log[:-12]


def log_tail() -> str:
    return " ".join("".join(_log).split())


def main() -> None:
    parser = argparse.ArgumentParser(description="Answer timed commands with llama.cpp (JSON lines).")
    parser.add_argument("model", help="a GGUF file")
    parser.add_argument("--threads", type=int, default=2, help="threads of a pass over one token")
    parser.add_argument("--threads-batch", type=int, default=None, help="threads of a longer pass (as --threads)")
    parser.add_argument("--context", type=int, default=4096, help="tokens that the cache can hold")
    parser.add_argument("--flash-attention", choices=sorted(FLASH_ATTENTION), default="auto")
    options = parser.parse_args()

    # Native code may print to descriptor 1; the answers get a descriptor of their own, and 1 becomes standard error.
    answers = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)
    log_callback = llama_cpp.llama_log_callback(_keep_log)  # held in a name: C keeps only its address
    llama_cpp.llama_log_set(log_callback, ctypes.c_void_p(0))

    def reply(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")

    start = perf_counter()
    try:
        session = Session(
            options.model,
            threads=options.threads,
            threads_batch=options.threads_batch or options.threads,
            context=options.context,
            flash_attention=options.flash_attention,
        )
    except RuntimeError as problem:
        reply({"error": str(problem)})
        sys.exit(1)
    reply(
        {
            "version": llama_cpp.__version__,
            "system": llama_cpp.llama_print_system_info().decode().strip(" |"),
            "threads": options.threads,
            "vocab_size": session.vocab_size,
            "bos_token_id": session.bos_token_id,
            "load_seconds": perf_counter() - start,
        }
    )
    for line in sys.stdin:
        request = json.loads(line)
        if request.get("op") == "close":
            reply({})
            break
        reply(answer(session, request))
    session.close()


if __name__ == "__main__":
    main()
