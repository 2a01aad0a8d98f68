"""llama.cpp beside this engine: one process with the same file, which answers timed commands.

Its program is `llama_cpp_peer.py`; times are taken in there. It sleeps between commands, so its measurements can
alternate with this engine's own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from outrider.errors import OutriderError, UsageError

if TYPE_CHECKING:
    from outrider import LLM

PROGRAM = Path(__file__).with_name("llama_cpp_peer.py")
INSTALL = (
    "make one with:\n"
    "  python -m venv peer\n"
    '  CMAKE_ARGS="-DGGML_NATIVE=ON" peer/bin/pip install --no-binary llama-cpp-python llama-cpp-python==0.3.36\n'
    "and give peer/bin/python"
)
_LEAST_CONTEXT = 4096
_REST_SECONDS = 0.02
"""After an answer: the peer's threads spin for 5 to 10 ms, on the cores that the next measurement needs."""


class Peer(StrEnum):
    """Software that can be measured beside this engine."""

    LLAMA_CPP = "llama.cpp"


class PeerError(OutriderError):
    """The peer cannot be started, or a command failed; the message has the reason and the remedy."""


@contextmanager
def open_peer(peer: Peer | None, python: Path | None, llm: LLM, context: int = 0) -> Iterator[LlamaCpp | None]:
    """The peer with the same file loaded and as many threads; None if none is requested.

    Args:
        python: a Python with llama-cpp-python; None for the one that runs this.
        context: tokens that it has to hold.

    Raises:
        UsageError: the peer cannot read this model.
        PeerError: it cannot be started; the message says how to install it.
    """
    if peer is None:
        yield None
        return
    if llm.path.suffix != ".gguf":
        raise UsageError(f"--against {peer.value} needs a .gguf file, which {llm.path} is not")
    running = LlamaCpp(python or sys.executable, llm.path, llm.parts.threads, max(context, _LEAST_CONTEXT))
    try:
        yield running
    finally:
        running.close()


class LlamaCpp:
    """A running llama.cpp with one model loaded.

    Raises:
        PeerError: `python` has no llama_cpp, the file cannot be loaded, or a command fails.
    """

    def __init__(self, python: str | Path, model: Path, threads: int, context: int) -> None:
        self._python = python
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  (closed by close; a pipe would fill up)
        command = [str(python), str(PROGRAM), str(model), str(threads), str(context)]
        pipe = subprocess.PIPE
        try:
            self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self._errors, text=True)
        except OSError as problem:
            self._errors.close()
            raise PeerError(
                f"cannot start {python} ({problem.strerror}); a Python with llama_cpp is needed, {INSTALL}"
            ) from problem
        try:
            self.about: dict[str, str] = {"name": Peer.LLAMA_CPP.value, "version": self._receive()["version"]}
        except PeerError:
            self.close()
            raise

    def verify(self, rows: int, context: int, repeat: int) -> list[float]:
        """Seconds of each of `repeat` passes over `rows` tokens after `context` tokens, logits for every row."""
        return list(self._ask(op="verify", rows=rows, context=context, repeat=repeat))

    def decode(self, prompt: Sequence[int], tokens: int) -> float:
        """Tokens per second of a greedy decode of exactly `tokens` tokens, by the passes alone."""
        return tokens / float(self._ask(op="decode", prompt=list(prompt), tokens=tokens))

    def prefill(self, tokens: Sequence[int]) -> float:
        """Seconds of a prompt from an empty cache, logits for its last token."""
        return float(self._ask(op="prefill", prompt=list(tokens)))

    def close(self) -> None:
        """Ends the process."""
        if self._process.poll() is None:
            self._process.stdin.close()  # type: ignore[union-attr]  # end of input ends the loop over there
            try:
                self._process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._process.stdout.close()  # type: ignore[union-attr]
        self._errors.close()

    def _ask(self, **request: Any) -> Any:
        with suppress(BrokenPipeError):  # it has ended: `_receive` has the reason
            print(json.dumps(request), file=self._process.stdin, flush=True)
        seconds = self._receive()["seconds"]
        time.sleep(_REST_SECONDS)
        return seconds

    def _receive(self) -> dict[str, Any]:
        line = self._process.stdout.readline()  # type: ignore[union-attr]
        if not line:
            status = self._process.wait()
            self._errors.seek(0)
            last = self._errors.read()[-2000:].strip()
            if "No module named" in last:
                raise PeerError(f"{self._python} has no llama_cpp ({last.splitlines()[-1]}); {INSTALL}")
            raise PeerError(f"the llama.cpp process ended with status {status}: {last or 'no message'}")
        return dict(json.loads(line))
