"""A replica without a model: it takes the time that the model would take, and remembers what it has computed."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass

from outrider.roofline.clients import Replica

CONVERSATIONS = 64
"""As many fit into its memory; the least recently used leaves first."""


@dataclass(eq=False)
class Job:
    """A request: seconds of its prompt alone, and tokens of its answer, that are left."""

    prompt_seconds: float
    tokens: int


@dataclass(frozen=True)
class Pass:
    """How long a pass takes, and what it brings: first tokens, and ends of answers."""

    seconds: float
    begun: Sequence[Job]
    ended: Sequence[Job]


class StandIn:
    """Passes over the requests that run. Prompts divide among them half of a pass beside others that decode."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._waiting: deque[Job] = deque()
        self._prompts: list[Job] = []
        self._decoding: list[Job] = []
        self._known: OrderedDict[int, None] = OrderedDict()

    def arrive(self, job: Job) -> None:
        """A request that waits until fewer than the most run."""
        self._waiting.append(job)

    def next(self) -> Pass | None:
        """The next pass, as if it had ended; None if there is nothing to do."""
        while self._waiting and len(self._prompts) + len(self._decoding) < self._replica.running:
            self._prompts.append(self._waiting.popleft())
        if not self._prompts and not self._decoding:
            return None
        decoding = self._decoding
        share = self._replica.token_seconds[max(len(decoding), 1) - 1]
        seconds = share * (bool(decoding) + bool(self._prompts))
        for job in self._prompts:
            job.prompt_seconds -= share / len(self._prompts)
        begun = [job for job in self._prompts if job.prompt_seconds <= 0]
        self._prompts = [job for job in self._prompts if job.prompt_seconds > 0]
        for job in [*decoding, *begun]:
            job.tokens -= 1
        ended = [job for job in [*decoding, *begun] if job.tokens <= 0]
        self._decoding = [job for job in [*decoding, *begun] if job.tokens > 0]
        return Pass(seconds, begun, ended)

    def recall(self, messages: Sequence[str]) -> bool:
        """Whether all but the last answer and the last question are in memory, where now all are."""
        before, after = hash(tuple(messages[:-2])), hash(tuple(messages))
        known = before in self._known
        self._known.pop(before, None)
        self._known[after] = None
        if len(self._known) > CONVERSATIONS:
            self._known.popitem(last=False)
        return known
