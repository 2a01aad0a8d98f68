"""The step loop. One step is one target pass over all running requests: prompt chunks, plain rows and drafts alike."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from outrider.cache import CachePool
from outrider.engine.drafting import DraftPlanner
from outrider.engine.request import Request
from outrider.engine.target import Ints, Rows, Target
from outrider.sampling.params import SamplingParams
from outrider.speculation.tree import Draft
from outrider.speculation.verify import walk
from outrider.tokenizer import Tokenizer

_log = logging.getLogger("outrider")


@dataclass
class _Work:
    """What one request does in a pass: `rows`, with `draft` hanging from row `last` (the last certain token)."""

    request: Request
    rows: Rows
    draft: Draft
    last: int
    draft_seconds: float


class Engine:
    """Runs requests to their end, any number at a time.

    Args:
        context: most positions of one request, prompt and answer together.
        chunk: most prompt tokens of one pass.
    """

    def __init__(
        self,
        target: Target,
        tokenizer: Tokenizer,
        caches: CachePool,
        planner: DraftPlanner,
        *,
        context: int,
        chunk: int,
    ) -> None:
        self.target, self.tokenizer, self.planner = target, tokenizer, planner
        self.context, self.chunk = context, chunk
        self._caches = caches
        self._end_tokens = frozenset(target.config.end_token_ids)
        self._running: list[Request] = []
        self._count = 0

    def add(self, prompt: list[int], params: SamplingParams) -> Request:
        """Takes in a request; its prompt is computed by the next steps."""
        self._count += 1
        sequence = self._caches.open(list(prompt))
        request = Request(self._count, prompt, params, sequence, self.tokenizer, self._end_tokens, self.context)
        self.planner.open(request)
        self._running.append(request)
        return request

    def step(self) -> None:
        """One target pass: gather rows, run them, and let every request walk as far as its draft was right."""
        work = self._gather()
        result = self.target.run([w.rows for w in work], logits=any(w.request.needs_logits for w in work))
        outputs = sum(len(w.rows.outputs) for w in work)
        hidden = self.target.hidden(outputs) if self.planner.wants_hidden and outputs else None
        first = 0  # of the pass's outputs, this request's first
        for w, choices, logits in zip(work, result.choices, result.logits, strict=True):
            if not w.rows.outputs:  # a prompt chunk that is not the last
                w.request.sequence.cache.commit(_rows(range(len(w.rows.tokens))))
                continue
            decoding = w.request.decoding
            verdict = walk(w.draft, w.request.chooser(choices, logits))
            kept = [*range(w.last + 1), *(w.last + 1 + node for node in verdict.accepted)]
            w.request.sequence.cache.commit(_rows(kept))
            w.request.account(verdict, len(w.draft), result.seconds, w.draft_seconds)
            self.planner.learn(w.request, w.draft, verdict)
            if hidden is not None:  # where the path ended: its last row with keys and values
                last = verdict.accepted[-1] + 1 if verdict.accepted else 0
                self.planner.observe(w.request, hidden[first + last])
            first += len(w.rows.outputs)
            if decoding and len(work) == 1:
                self.planner.cost.observe(len(w.rows.tokens), result.seconds)
            if w.request.finish_reason is not None:
                self._retire(w.request)

    def cancel(self, request: Request) -> None:
        """Ends a request where it stands; its place is free at once."""
        if request in self._running:
            self._retire(request)

    def _gather(self) -> list[_Work]:
        work = []
        room = self.target.max_rows
        # Requests that decode come first: a long prompt must not hold up the others' next token.
        for request in sorted(self._running, key=lambda r: not r.decoding):
            if room <= 0:
                break
            item = self._rows_of(request, min(room, self.chunk))
            room -= len(item.rows.tokens)
            work.append(item)
        return work

    def _rows_of(self, request: Request, room: int) -> _Work:
        """The tokens without keys and values yet, at most `room`; if that is all of them, a draft behind the last."""
        cache, tokens = request.sequence.cache, request.tokens
        fresh = tokens[cache.length : cache.length + room]
        last = len(fresh) - 1
        rows = Rows(cache, fresh, list(range(-1, last)), [])
        if cache.length + len(fresh) < len(tokens):
            return _Work(request, rows, Draft(), last, 0.0)
        started = time.perf_counter()
        draft = self.planner.propose(request) if request.decoding else Draft()
        if len(draft) > room - len(fresh):
            draft = draft.keep(list(range(room - len(fresh))))
        seconds = time.perf_counter() - started
        rows.tokens += [node.token for node in draft]
        rows.parents += [last + 1 + node.parent for node in draft]  # ROOT is -1: the last certain row
        rows.outputs = list(range(last, len(rows.tokens)))
        return _Work(request, rows, draft, last, seconds)

    def _retire(self, request: Request) -> None:
        self._running.remove(request)
        self.planner.close(request)
        self._caches.close(request.sequence)
        s = request.stats
        _log.info(
            "request %d: %d prompt + %d tokens, %s; prefill %.3f s, decode %.1f tok/s, %.2f tokens per pass, "
            "%d of %d drafted tokens accepted",
            *(request.number, request.prompt_length, len(request.answer), request.finish_reason or "cancelled"),
            *(s.prefill_seconds, s.decode_tokens_per_second, s.tokens_per_pass, s.accepted, s.drafted),
        )


def _rows(numbers: Iterable[int]) -> Ints:
    return np.fromiter(numbers, np.int32)
