"""llama.cpp beside us: a client that keeps one ``llama_cpp_peer.py`` process alive and asks it for measurements.

    with LlamaCpp(python="/path/to/venv/bin/python", model_path="model.gguf", threads=2) as peer:
        seconds = peer.verify(rows=4, context=512, repeat=5)

Times are taken inside that process. It sleeps between commands, so measurements can alternate with one's own (A, B,
A, B), which is what makes a comparison on a machine with other work to do mean anything.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from outrider.errors import OutriderError

PROGRAM = Path(__file__).with_name("llama_cpp_peer.py")
INSTALL = (
    "make one with:\n"
    "  python -m venv peer\n"
    '  CMAKE_ARGS="-DGGML_NATIVE=ON" peer/bin/pip install --no-binary llama-cpp-python llama-cpp-python==0.3.36\n'
    "and give peer/bin/python"
)
_REST_SECONDS = 0.02
"""After an answer. The threads of the peer go on spinning for 5 to 10 ms, on the cores that whoever is next needs."""


class PeerError(OutriderError):
    """The peer could not be started, or refused a command; the message says why and what to do."""


@dataclass(frozen=True)
class Decoded:
    """A greedy continuation: n tokens from n passes of one token each."""

    token_ids: list[int]
    seconds: float
    """The whole loop: passes, argmax over the logits (numpy), and the Python between them."""
    pass_seconds: float
    """The passes alone."""
    prefill_seconds: float
    """The prompt but its last token, which the first pass feeds."""

    @property
    def tokens_per_second(self) -> float:
        """By ``pass_seconds``: what llama.cpp itself reaches, with no Python in it."""
        return len(self.token_ids) / self.pass_seconds


@dataclass(frozen=True)
class Prefilled:
    """A prompt processed ``len(seconds)`` times from an empty cache, logits for its last token only."""

    seconds: list[float]
    next_token_id: int


@dataclass(frozen=True)
class Scored:
    """log p of every token given those before it in its window."""

    log_probs: npt.NDArray[np.float64]
    """(tokens,) natural logarithms"""
    seconds: float


class LlamaCpp:
    """A running llama.cpp with one model loaded.

    Raises PeerError when ``python`` has no llama_cpp, the file cannot be loaded, or a command fails.
    """

    def __init__(
        self,
        python: str | Path,
        model_path: str | Path,
        threads: int = 2,
        *,
        threads_batch: int | None = None,
        context: int = 4096,
        flash_attention: str = "auto",
    ) -> None:
        command = [str(python), str(PROGRAM), str(model_path), "--threads", str(threads), "--context", str(context)]
        command += ["--threads-batch", str(threads_batch or threads), "--flash-attention", flash_attention]
        self._python = str(python)
        # A file, since a pipe nobody reads would fill up and stop the process.
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  (closed by close)
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True
            )
        except OSError as problem:
            self._errors.close()
            raise PeerError(
                f"cannot start {python} ({problem.strerror}); a Python with llama_cpp is needed, {INSTALL}"
            ) from problem
        if self._process.stdin is None or self._process.stdout is None:
            raise AssertionError("Popen was asked for both pipes")
        self._commands, self._answers = self._process.stdin, self._process.stdout
        try:
            about = self._receive()
        except PeerError:
            self.close()
            raise
        self.version: str = about["version"]
        self.system: str = about["system"]
        self.vocab_size: int = about["vocab_size"]
        self.bos_token_id: int = about["bos_token_id"]
        self.load_seconds: float = about["load_seconds"]

    # -- measurements ------------------------------------------------------------------------------------------------

    def verify(self, rows: int, context: int, repeat: int = 1, warmup: int = 1) -> list[float]:
        """Seconds of each of ``repeat`` passes over ``rows`` tokens after ``context`` tokens, logits for every row.

        The context stays in the cache between calls and each pass is taken back, so alternating calls with the same
        ``context`` cost no prefill. ``warmup`` passes run first and are not reported.
        """
        answer = self._ask(op="verify", rows=rows, context=context, repeat=repeat, warmup=warmup)
        return list(answer["seconds"])

    def decode(self, prompt: Sequence[int], tokens: int) -> Decoded:
        """Greedy decode of exactly ``tokens`` tokens after ``prompt`` (BOS included by the caller); no end token."""
        answer = self._ask(op="decode", prompt=list(prompt), tokens=tokens)
        return Decoded(answer["tokens"], answer["seconds"], answer["pass_seconds"], answer["prefill_seconds"])

    def prefill(self, tokens: Sequence[int], repeat: int = 1, warmup: int = 0) -> Prefilled:
        """Process a prompt from an empty cache, ``repeat`` times."""
        answer = self._ask(op="prefill", tokens=list(tokens), repeat=repeat, warmup=warmup)
        return Prefilled(answer["seconds"], answer["next"])

    def perplexity(self, tokens: Sequence[int], window: int = 512) -> Scored:
        """log p of each token, in windows of ``window`` rows: BOS and ``window - 1`` tokens, a fresh context each."""
        answer = self._ask(op="perplexity", tokens=list(tokens), window=window)
        return Scored(np.array(answer["log_probs"], np.float64), answer["seconds"])

    def tokenize(self, text: str) -> list[int]:
        """llama.cpp's ids for ``text``: no BOS, special tokens read as text."""
        return list(self._ask(op="tokenize", text=text)["tokens"])

    # -- the process -------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End the process; safe to call twice."""
        if self._process.poll() is None:
            self._commands.close()  # end of input ends the loop over there
            try:
                self._process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._answers.close()
        self._errors.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, **request: Any) -> dict[str, Any]:
        if self._process.poll() is not None:
            raise PeerError(f"the llama.cpp process has ended (status {self._process.returncode})")
        self._commands.write(json.dumps(request) + "\n")
        self._commands.flush()
        answer = self._receive()
        time.sleep(_REST_SECONDS)
        return answer

    def _receive(self) -> dict[str, Any]:
        line = self._answers.readline()
        if not line:
            status = self._process.wait()
            self._errors.seek(0)
            said = self._errors.read()[-2000:].strip()
            raise PeerError(f"the llama.cpp process ended with status {status}: {said or 'it said nothing'}")
        answer: dict[str, Any] = json.loads(line)
        if "missing" in answer:
            raise PeerError(f"{self._python} has no {answer['missing']} ({answer['error']}); {INSTALL}")
        if "error" in answer:
            raise PeerError(answer["error"])
        return answer
