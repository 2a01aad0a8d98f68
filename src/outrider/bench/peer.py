"""llama.cpp in this process, on the same file: the figures of llama-bench, one measurement at a time.

Everything is llama.cpp's own default but the thread counts and `swa_full`, without which a sliding layer cannot take
rows back. Tested with llama-cpp-python 0.3.36.
"""

from __future__ import annotations

import ctypes
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from time import perf_counter, sleep
from typing import TYPE_CHECKING

import numpy as np

from outrider.errors import OutriderError, UsageError

if TYPE_CHECKING:
    from outrider import LLM

_INSTALL = 'CMAKE_ARGS="-DGGML_NATIVE=ON" pip install --no-binary llama-cpp-python llama-cpp-python==0.3.36'
_LEAST_CONTEXT = 4096
_REST_SECONDS = 0.02
"""After a measurement: the peer's threads spin for 5 to 10 ms, on the cores that the next measurement needs."""


class Peer(StrEnum):
    """Software that can be measured in the same turns as this engine."""

    LLAMA_CPP = "llama.cpp"


class PeerError(OutriderError):
    """llama.cpp cannot load the model, or a pass failed."""


def installed(peer: Peer | None) -> Peer | None:
    """The same peer. Raises UsageError if it is not installed; the message has the command that installs it."""
    if peer is not None:
        try:
            import llama_cpp  # noqa: F401
        except ImportError as error:
            raise UsageError(f"--against llama.cpp needs llama-cpp-python ({error}): {_INSTALL}") from error
    return peer


@contextmanager
def open_peer(peer: Peer | None, llm: LLM, context: int = 0) -> Iterator[LlamaCpp | None]:
    """The peer with the same file loaded and as many threads; None if none is requested.

    Args:
        context: tokens that it has to hold.

    Raises:
        UsageError: the peer cannot read this model.
        PeerError: it cannot load the model.
    """
    if peer is None:
        yield None
        return
    if llm.path.suffix != ".gguf":
        raise UsageError(f"--against {peer.value} needs a .gguf file, which {llm.path} is not")
    running = LlamaCpp(llm.path, llm.parts.threads, max(context, _LEAST_CONTEXT))
    try:
        yield running
    finally:
        running.close()


class LlamaCpp:
    """llama.cpp with one model, one context of `context` tokens, and one sequence (id 0).

    Raises:
        PeerError: the file cannot be loaded, or a pass fails.
    """

    def __init__(self, path: Path, threads: int, context: int) -> None:
        import llama_cpp

        logging.getLogger("llama-cpp-python").setLevel(logging.ERROR)
        self._api = llama_cpp
        self.about = {"name": Peer.LLAMA_CPP.value, "version": f"llama-cpp-python {llama_cpp.__version__}"}
        llama_cpp.llama_backend_init()
        model_params = llama_cpp.llama_model_default_params()
        model_params.n_gpu_layers, model_params.load_mode = 0, llama_cpp.LLAMA_LOAD_MODE_MMAP
        self._model = llama_cpp.llama_model_load_from_file(os.fsencode(path), model_params)
        if not self._model:
            raise PeerError(f"llama.cpp cannot load {path}")
        params = llama_cpp.llama_context_default_params()
        params.n_ctx, params.n_threads, params.n_threads_batch, params.swa_full = context, threads, threads, True
        self._context = llama_cpp.llama_init_from_model(self._model, params)
        if not self._context:
            raise PeerError(f"llama.cpp cannot make a context of {context} tokens for {path}")
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))
        self._most_rows = int(params.n_batch)
        self._batch = llama_cpp.llama_batch_init(self._most_rows, 0, 1)
        self._length = 0
        self._prepared = -1  # the context that `verify` left in the cache

    def verify(self, rows: int, context: int, repeat: int) -> list[float]:
        """Seconds of each of `repeat` passes over `rows` tokens after `context` tokens, logits for every row.

        Each pass is taken back again; one more comes first, uncounted.
        """
        tokens = [1000 + (index * 7919) % (min(self._vocabulary, 50_000) - 1000) for index in range(context + rows)]
        if self._prepared != context:
            self._truncate(0)
            self._extend(tokens[:context])
        seconds = []
        for _ in range(repeat + 1):
            seconds.append(self._forward(tokens[context:], all_logits=True))
            self._truncate(context)
        self._prepared = context
        sleep(_REST_SECONDS)
        return seconds[1:]

    def decode(self, prompt: Sequence[int], tokens: int) -> float:
        """Tokens per second of a greedy decode of exactly `tokens` tokens, by the passes alone."""
        self._truncate(0)
        self._extend(prompt[:-1])
        token, seconds = prompt[-1], 0.0
        for _ in range(tokens):
            seconds += self._forward([token])
            token = self._likeliest()
        sleep(_REST_SECONDS)
        return tokens / seconds

    def prefill(self, tokens: Sequence[int]) -> float:
        """Seconds of a prompt from an empty cache, logits for its last token."""
        self._truncate(0)
        seconds = self._extend(tokens)
        sleep(_REST_SECONDS)
        return seconds

    def close(self) -> None:
        """Frees the model."""
        self._api.llama_batch_free(self._batch)
        self._api.llama_free(self._context)
        self._api.llama_model_free(self._model)

    def _truncate(self, length: int) -> None:
        """Takes back all rows from position `length` on."""
        if not self._api.llama_memory_seq_rm(self._memory, 0, length, -1):
            raise PeerError(f"llama.cpp cannot take rows back to position {length}")
        self._length, self._prepared = length, -1

    def _forward(self, tokens: Sequence[int], *, all_logits: bool = False) -> float:
        """One pass; the seconds until its logits can be read, without filling the batch."""
        batch = self._batch
        batch.n_tokens = len(tokens)
        for row, token in enumerate(tokens):
            batch.token[row], batch.pos[row] = token, self._length + row
            batch.n_seq_id[row], batch.seq_id[row][0] = 1, 0
            batch.logits[row] = all_logits or row == len(tokens) - 1
        started = perf_counter()
        status = self._api.llama_decode(self._context, batch)
        self._api.llama_get_logits(self._context)  # waits for the pass to end
        seconds = perf_counter() - started
        if status != 0:
            raise PeerError(f"llama_decode failed with status {status} at {len(tokens)} rows")
        self._length += len(tokens)
        return seconds

    def _extend(self, tokens: Sequence[int]) -> float:
        """Passes over all tokens; their seconds."""
        parts = (tokens[begin : begin + self._most_rows] for begin in range(0, len(tokens), self._most_rows))
        return sum(self._forward(part) for part in parts)

    def _likeliest(self) -> int:
        """The token with the largest logit after a pass over one row."""
        address = ctypes.cast(self._api.llama_get_logits(self._context), ctypes.c_void_p).value
        assert address is not None
        logits = (ctypes.c_float * self._vocabulary).from_address(address)
        return int(np.frombuffer(logits, np.float32).argmax())
