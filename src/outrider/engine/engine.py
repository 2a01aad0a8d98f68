"""The step loop. One step is one target pass over all running requests: prompt chunks, plain rows and drafts alike."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial, wraps

from outrider.cache import CachePool
from outrider.drafters.protocol import CommittedRows
from outrider.engine.batch import Batch, Slot, VerifiedPass, certain_rows, count_rows, hand_out
from outrider.engine.isolation import drafts, failing_alone, verified
from outrider.engine.media import Medium, check_media
from outrider.engine.outputs import TargetPass
from outrider.engine.prefill import PromptShare, divide
from outrider.engine.request import Request
from outrider.engine.states import RequestStates
from outrider.engine.target import Target
from outrider.errors import OutriderError
from outrider.sampling.constraint import GrammarCompiler
from outrider.sampling.params import SamplingParams, Scope
from outrider.speculation.planner import DraftPlanner
from outrider.speculation.walk import walk
from outrider.tokenizer import Tokenizer

_log = logging.getLogger("outrider.engine")

OnCommit = Callable[[Request, CommittedRows], None]


def _whole(step: Callable[[Engine], None]) -> Callable[[Engine], None]:
    """Runs a step while no other thread is inside. An exception, an interrupt too, ends all requests and is raised:
    none may continue from half a pass."""

    @wraps(step)
    def run(engine: Engine) -> None:
        with engine.target.gate:
            try:
                step(engine)
            except BaseException as error:
                for request in engine._running:
                    request.error = OutriderError(f"the pass that computed the request was interrupted ({error!r})")
                engine._retire()
                raise

    return run


class Engine:
    """Runs any number of requests. One thread at a time is inside; a fork waits until none is.

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
        self._on_commit: OnCommit | None = None

    def add(self, prompt: list[int], params: SamplingParams, media: Sequence[Medium] = ()) -> Request:
        """Takes in a request; its prompt is computed by the next steps.

        Args:
            media: the rows of the prompt that carry embeddings, ascending.

        Raises:
            ValueError: the media do not fit the prompt (a bug of the caller, not of the input).
            UsageError: the grammar cannot be used.
            OutriderError: its keys and values could never fit into memory.
        """
        check_media(media, len(prompt), self.target.config.hidden_size)
        reuse = params.cache_prompt and self.planner.reuses
        scope, keys = Scope(params.cache_salt, params.lora), tuple(medium.key for medium in media)
        limit = min(len(prompt) + params.max_tokens, self.context)
        with self.target.gate:
            self._count += 1
            sequence = self._caches.open(
                list(prompt), limit=limit, salt=scope, media=keys, reuse=reuse, keep=params.cache_prompt
            )
            given = self._count, params, sequence, media, self.tokenizer, self._end_tokens, self._grammars
            try:
                request = Request(*given, self.target.config.suppressed)
                self.planner.open(request.state)
                if self._caches.states.kinds:
                    sequence.states = RequestStates(request, self.planner, self._caches.states)
            except Exception:
                self._caches.close(sequence)
                raise
            self._running.append(request)
            return request

    @_whole
    def step(self) -> None:
        """One round for all requests: each gets at least one token, or a chunk of its prompt.

        A failure within one request ends that one alone; see `Request.error` and `engine.isolation`.
        """
        self._caches.admit()  # requests begin as far as memory allows, with what others have computed of their prompts
        batch = self._schedule()  # one row for each request that decodes, and chunks of prompts
        self._draft(batch)  # a tree of proposed tokens hangs from each of these rows
        self._caches.make_room([(slot.request.sequence, len(slot.rows.tokens)) for slot in batch.slots])
        for passed in verified(self._verify, batch.slots):  # one target pass over all rows
            for slot in passed.slots:
                with failing_alone(slot.request):
                    self._accept(slot, passed, batch.draft_seconds)  # as far as the target chooses the same tokens
                    slot.commit()  # accepted rows become part of the cache
            self._learn(passed, batch)  # chances and costs, for the next draft
            for slot in passed.slots:
                self._caches.committed(slot.request.sequence)  # pages that are full are there for other requests
        self._retire()  # those that ended

    def _schedule(self) -> Batch:
        """The rows of the next pass, without drafts."""
        # Requests that decode come first: a long prompt must not delay the next token of the others.
        decoding = [r for r in self._running if r.decoding][: self.target.max_rows]
        prompts = [r for r in self._running if r.sequence.runs and not r.decoding]
        for request in prompts:
            request.stats.reused_tokens = request.sequence.reused
        room = self.target.max_rows - len(decoding)
        if decoding and prompts:
            cost = self.planner.cost_of([request.state for request in decoding])
            room = min(room, self._share.rows(cost(len(decoding))))
        wanted = [min(len(request.tokens) - request.sequence.cache.length, self.chunk) for request in prompts]
        every = self.planner.hidden == "all"
        chunks = [(request, rows) for request, rows in zip(prompts, divide(room, wanted), strict=True) if rows]
        return Batch(
            [certain_rows(request, 1, every_output=every) for request in decoding],
            [certain_rows(request, rows, every_output=every) for request, rows in chunks],
        )

    def _draft(self, batch: Batch) -> None:
        """Attaches a draft to every request that decodes."""
        started, prompt_rows = time.perf_counter(), count_rows(batch.prompts)
        propose = partial(self.planner.propose, other_rows=prompt_rows)
        found = drafts(propose, [slot.request for slot in batch.decoding])
        batch.draft_seconds = time.perf_counter() - started
        room = self.target.max_rows - len(batch.decoding) - prompt_rows
        for slot, draft in zip(batch.decoding, found, strict=True):
            slot.attach(draft if len(draft) <= room else draft.keep(list(range(room))))
            room -= len(slot.draft)

    def _verify(self, slots: list[Slot]) -> VerifiedPass:
        """Runs one target pass over all rows."""
        result = self.target.run([s.rows for s in slots], logits=any(s.request.needs_logits for s in slots))
        self.planner.prefetch([slot.request.state for slot in slots])
        outputs = sum(len(slot.rows.outputs) for slot in slots)
        needed = outputs and (self.planner.hidden != "none" or self._on_commit is not None)
        rows = count_rows(slots)
        hand_out(slots, result, self.target.hidden(outputs) if needed else None, self.target.taps(rows))
        return VerifiedPass(slots, rows, result.seconds)

    def _accept(self, slot: Slot, passed: VerifiedPass, draft_seconds: float) -> None:
        """Appends the tokens that the target chose along the draft, and its bonus token."""
        if slot.chooses:
            slot.verdict = walk(slot.draft, slot.request.emitter(*slot.walkable()))
            verify = TargetPass(passed.rows, passed.seconds)
            slot.request.account(slot.verdict, slot.draft, verify, draft_seconds)

    def _learn(self, passed: VerifiedPass, batch: Batch) -> None:
        """Learns from verdicts and measured times, and reports the committed rows."""
        for slot in passed.slots:
            if slot.committed is None:
                continue
            with failing_alone(slot.request):
                if slot.verdict is not None:
                    self.planner.learn(slot.request.state, slot.draft, slot.verdict)
                self.planner.observe(slot.request.state, slot.committed)
            if self._on_commit is not None:
                self._on_commit(slot.request, slot.committed)
        decoding = [slot for slot in passed.slots if slot in batch.decoding]
        if not decoding:
            return
        rows = count_rows(decoding)
        states = [slot.request.state for slot in decoding]
        if passed.rows > rows:
            self._share.observe(passed.rows - rows, self.planner.cost_of(states)(rows), passed.seconds)
        else:
            context = sum(state.cache.length for state in states) // len(states)
            self.planner.learn_cost([s.draft for s in decoding], context, passed.seconds, batch.draft_seconds)

    @contextmanager
    def observing(self, on_commit: OnCommit) -> Iterator[None]:
        """While it is open, `on_commit` gets the rows that each pass commits, after their tokens were appended.

        They include the hidden state of the last row wherever the target chose a token.
        """
        self._on_commit = on_commit
        try:
            yield
        finally:
            self._on_commit = None

    def cancel(self, request: Request) -> None:
        """Ends a request at once and frees its slot."""
        with self.target.gate:
            if request in self._running:
                self._remove(request)

    def cancel_all(self) -> None:
        """Ends all requests at once."""
        for request in list(self._running):
            self.cancel(request)

    def _retire(self) -> None:
        for request in [request for request in self._running if request.ended]:
            self._remove(request)

    def _remove(self, request: Request) -> None:
        self._running.remove(request)
        try:
            self._caches.close(request.sequence, failed=request.error is not None)
        finally:
            self.planner.close(request.state)
        s = request.stats
        ended = "failed" if request.error else request.finish_reason or "cancelled"
        _log.info(
            "request %d: %d prompt + %d tokens, %s; prefill %.3f s, decode %.1f tok/s, %.2f tokens per pass, "
            "%d of %d drafted tokens accepted",
            *(request.number, request.prompt_length, len(request.answer), ended),
            *(s.prefill_seconds, s.decode_tokens_per_second, s.tokens_per_pass, s.accepted, s.drafted),
        )
