"""The step loop. One step is one target pass over all running requests: prompt chunks, plain rows and drafts alike."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from outrider.cache import CachePool
from outrider.drafters.tree import Draft
from outrider.engine.drafting import DraftPlanner
from outrider.engine.outputs import TargetPass
from outrider.engine.prefill import PromptShare, divide
from outrider.engine.request import Request
from outrider.engine.target import Ints, PassResult, Rows, Target
from outrider.engine.turns import Turns
from outrider.errors import OutriderError
from outrider.sampling.constraint import GrammarCompiler
from outrider.sampling.params import SamplingParams
from outrider.speculation.walk import Verdict, walk
from outrider.tokenizer import Tokenizer

_log = logging.getLogger("outrider.engine")


@dataclass
class _Work:
    """What one request does in a pass: `rows`, with `draft` hanging from row `last` (the last certain token)."""

    request: Request
    rows: Rows
    last: int
    draft: Draft = field(default_factory=Draft)

    def hang(self, draft: Draft) -> None:
        """Adds a draft's rows; every row from `last` on has an output."""
        self.draft = draft
        self.rows.tokens += [node.token for node in draft]
        self.rows.parents += [self.last + 1 + node.parent for node in draft]  # ROOT is -1: the last certain row
        self.rows.outputs = list(range(self.last, len(self.rows.tokens)))


def _certain_rows(request: Request, room: int) -> _Work:
    """The tokens without keys and values yet, at most `room`; the last has an output if no more are left."""
    cache, tokens = request.sequence.cache, request.tokens
    fresh = tokens[cache.length : cache.length + room]
    last = len(fresh) - 1
    done = cache.length + len(fresh) == len(tokens)
    return _Work(request, Rows(cache, fresh, list(range(-1, last)), [last] if done else []), last)


class Engine:
    """Runs requests to their end, any number at a time. Several threads may call it, and share its passes.

    Args:
        context: most positions of one request, prompt and answer together.
        chunk: most prompt tokens of one request in one pass; fewer while others decode (see `prefill`).
    """

    def __init__(
        self,
        target: Target,
        tokenizer: Tokenizer,
        caches: CachePool,
        planner: DraftPlanner,
        grammars: GrammarCompiler,
        *,
        context: int,
        chunk: int,
    ) -> None:
        self.target, self.tokenizer, self.planner = target, tokenizer, planner
        self.context, self.chunk = context, chunk
        self._caches, self._grammars = caches, grammars
        self._share = PromptShare(planner.costs.at(0))
        self._end_tokens = frozenset(target.config.end_token_ids)
        self._running: list[Request] = []
        self._count = 0
        self._turns = Turns()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Within it no pass runs: what one thread adds here begins in the same pass."""
        with self._turns.change(self._retire_ended):
            self._drop_requests_of_the_parent()
            yield

    def add(self, prompt: list[int], params: SamplingParams) -> Request:
        """Takes in a request; its prompt is computed by the next steps."""
        with self.together():
            return self._add(prompt, params)

    def _add(self, prompt: list[int], params: SamplingParams) -> Request:
        self._count += 1
        sequence = self._caches.open(list(prompt), reuse=params.cache_prompt, salt=params.cache_salt)
        try:
            request = Request(
                *(self._count, prompt, params, sequence, self.tokenizer, self._end_tokens, self.context, self._grammars)
            )
            self.planner.open(request)
        except Exception:
            self._caches.close(sequence)
            raise
        self._running.append(request)
        return request

    def step(self) -> None:
        """One target pass for all requests; if another thread is in one, waits for its end instead.

        What fails within one request ends that one alone; see `Request.error`. What breaks the pass ends all that are
        in it, and is raised to the thread that ran it.
        """
        self._turns.run_pass(self._pass, self._retire_ended)

    def _pass(self) -> None:
        """Gather rows, run them, and let every request walk as far as its draft was right."""
        self._drop_requests_of_the_parent()
        if not self._running:
            return
        try:
            work, draft_seconds = self._gather()
            for together, result in self._run(work):
                self.planner.get_ready([w.request for w in together])
                self._take(together, result, draft_seconds)
        except BaseException as error:  # KeyboardInterrupt too: no request may go on from half a pass
            self._end_all(f"the pass that computed the request was interrupted ({error!r})")
            raise

    def cancel(self, request: Request) -> None:
        """Ends a request where it stands; its place is free before the next pass."""
        request.cancelled = True
        self._turns.at_once(self._retire_ended)

    def end_all(self, why: str) -> None:
        """Ends every request with an error."""
        with self.together():
            self._end_all(why)

    def _drop_requests_of_the_parent(self) -> None:
        """In a forked child: the threads that wait for the parent's requests are not here."""
        if self._turns.in_new_child:
            self._turns.in_new_child = False
            self._end_all("the process was forked while the request ran: send it again in the child")
            self._retire_ended()

    def _end_all(self, why: str) -> None:
        for request in self._running:
            request.error = OutriderError(why)

    def _run(self, work: list[_Work]) -> Iterator[tuple[list[_Work], PassResult]]:
        """One pass over all. Should it fail, one for each request: nothing was committed, and rows do not see each
        other, so those that are not to blame go on as if nothing had happened."""
        if not work:
            return
        try:
            result = self.target.run([w.rows for w in work], logits=any(w.request.needs_logits for w in work))
        except Exception as error:
            if len(work) == 1:
                _fail(work[0].request, error)
                return
            for w in work:
                yield from self._run([w])
            return
        yield work, result

    def _take(self, work: list[_Work], result: PassResult, draft_seconds: float) -> None:
        """What a pass brought to each of its requests."""
        outputs = sum(len(w.rows.outputs) for w in work)
        hidden = self.target.hidden(outputs) if self.planner.wants_hidden and outputs else None
        decoding = [w for w in work if w.request.decoding]
        verify = TargetPass(sum(len(w.rows.tokens) for w in work), result.seconds)
        first = 0  # of the pass's outputs, this request's first
        for w, choices, logits in zip(work, result.choices, result.logits, strict=True):
            try:
                with w.request.lock:  # another thread may be about to take a piece
                    verdict = self._walk(w, w.request.choices(choices, logits))
                    if verdict is not None:
                        w.request.account(verdict, w.draft, verify, draft_seconds)
                        self.planner.learn(w.request, w.draft, verdict)
                if verdict is not None and hidden is not None:
                    # Where the path ended: its last row with keys and values.
                    last = verdict.accepted[-1] + 1 if verdict.accepted else 0
                    self.planner.observe(w.request, hidden[first + last])
            except Exception as error:
                _fail(w.request, error)
            first += len(w.rows.outputs)
        self._learn_cost(decoding, work, result.seconds, draft_seconds)

    def _walk(self, w: _Work, choose: Callable[[int], int | None]) -> Verdict | None:
        """Accepts and commits; None for a prompt chunk that is not the last."""
        if not w.rows.outputs:
            w.request.sequence.cache.commit(_rows(range(len(w.rows.tokens))))
            return None
        verdict = walk(w.draft, choose)
        kept = [*range(w.last + 1), *(w.last + 1 + node for node in verdict.accepted)]
        w.request.sequence.cache.commit(_rows(kept))
        return verdict

    def _gather(self) -> tuple[list[_Work], float]:
        """Every request's part of the next pass, and the seconds that drafting took."""
        # Requests that decode come first: a long prompt must not hold up the others' next token.
        decoding = [r for r in self._running if r.decoding][: self.target.max_rows]
        room = self.target.max_rows - len(decoding)
        prompts = self._prompt_work(decoding, room)
        work = [_certain_rows(request, 1) for request in decoding]
        beside = sum(len(w.rows.tokens) for w in prompts)
        room -= beside
        started = time.perf_counter()
        drafts = self._propose(decoding, beside)
        seconds = time.perf_counter() - started
        for w, draft in zip(work, drafts, strict=True):
            w.hang(draft if len(draft) <= room else draft.keep(list(range(room))))
            room -= len(w.draft)
        return [w for w in work + prompts if not w.request.ended], seconds

    def _propose(self, decoding: list[Request], beside: int) -> list[Draft]:
        """What the drafters propose. Should they fail, each request is asked for alone, to find whose fault it is."""
        try:
            return self.planner.propose(decoding, beside)
        except Exception as error:
            if len(decoding) == 1:
                _fail(decoding[0], error)
                return [Draft()]
            return [self._propose([request], beside)[0] for request in decoding]

    def _prompt_work(self, decoding: list[Request], room: int) -> list[_Work]:
        """The prompt rows of the next pass."""
        prompts = [request for request in self._running if not request.decoding]
        if decoding and prompts:
            room = min(room, self._share.rows(self.planner.cost_of(decoding)(len(decoding))))
        wanted = [min(len(request.tokens) - request.sequence.cache.length, self.chunk) for request in prompts]
        return [_certain_rows(r, rows) for r, rows in zip(prompts, divide(room, wanted), strict=True) if rows]

    def _learn_cost(
        self, decoding: list[_Work], work: list[_Work], verify_seconds: float, draft_seconds: float
    ) -> None:
        """Books what a pass took, if some of it decoded."""
        if not decoding:
            return
        rows = sum(len(w.rows.tokens) for w in decoding)
        beside = sum(len(w.rows.tokens) for w in work) - rows
        if beside:
            expected = self.planner.cost_of([w.request for w in decoding])(rows)
            self._share.observe(beside, expected, verify_seconds)
        else:
            context = sum(w.request.sequence.cache.length for w in work) // len(work)
            self.planner.learn_cost([w.draft for w in decoding], context, verify_seconds, draft_seconds)

    def _retire_ended(self) -> None:
        """At the end of every turn. One at a time: a garbage collection in between may retire others."""
        while leaving := next((r for r in self._running if r.ended or r.cancelled), None):
            self._retire(leaving)

    def _retire(self, request: Request) -> None:
        self._running.remove(request)
        self.planner.close(request)
        self._caches.close(request.sequence, keep=request.error is None and request.params.cache_prompt)
        s = request.stats
        ended = "failed" if request.error else request.finish_reason or "cancelled"
        _log.info(
            "request %d: %d prompt + %d tokens, %s; prefill %.3f s, decode %.1f tok/s, %.2f tokens per pass, "
            "%d of %d drafted tokens accepted",
            *(request.number, request.prompt_length, len(request.answer), ended),
            *(s.prefill_seconds, s.decode_tokens_per_second, s.tokens_per_pass, s.accepted, s.drafted),
        )


def _fail(request: Request, error: Exception) -> None:
    _log.error("request %d failed", request.number, exc_info=error)
    request.error = error


def _rows(numbers: Iterable[int]) -> Ints:
    return np.fromiter(numbers, np.int32)
