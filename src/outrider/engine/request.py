"""One request: its tokens, how the next is chosen, and when it ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from outrider.arrays import Floats, Ints
from outrider.cache import Sequence as CachedSequence
from outrider.drafters.protocol import SequenceState
from outrider.drafters.tree import Draft, reported
from outrider.engine.media import Medium
from outrider.engine.outputs import FinishReason, Piece, RequestOutput, RequestStats, TargetPass
from outrider.engine.text import TextStream
from outrider.sampling.choice import TokenChooser
from outrider.sampling.constraint import GrammarCompiler
from outrider.sampling.logprobs import TokenLogprobs, logprobs_of
from outrider.sampling.params import SamplingParams
from outrider.speculation.walk import Verdict
from outrider.tokenizer import Tokenizer


class Request:
    """A request in work.

    `sequence.tokens` are prompt and answer so far; those past `sequence.cache.length` have no keys and values yet.
    """

    def __init__(
        self,
        number: int,
        prompt: list[int],
        params: SamplingParams,
        sequence: CachedSequence,
        tokenizer: Tokenizer,
        end_tokens: frozenset[int],
        context: int,
        grammars: GrammarCompiler,
        media: Sequence[Medium] = (),
    ) -> None:
        self.number, self.params, self.sequence, self.media = number, params, sequence, media
        self.prompt_length = len(prompt)
        self.stats = RequestStats(prompt_tokens=len(prompt), reused_tokens=sequence.cache.length)
        self.finish_reason: FinishReason | None = None
        self.problem: str | None = None
        """Why the answer is broken off, if it is: its grammar could not go on."""
        self.error: Exception | None = None
        """What went wrong within this request, and ended it."""
        self.lock = threading.Lock()
        """Held while a pass adds to the answer, and while a piece of it is taken."""
        self.started = time.perf_counter()
        ends, stops = frozenset() if params.ignore_end else end_tokens, frozenset(params.stop_token_ids)
        self._end_tokens = ends | stops
        constraint = None
        if params.grammar is not None:
            # A stop token that is text comes where the grammar allows its text; a control token, where it may end.
            constraint = grammars.constraint(params.grammar, ends | (stops & tokenizer.hidden))
        self.chooser = TokenChooser(params, prompt, self._end_tokens, constraint)
        limit = min(self.prompt_length + params.max_tokens, context)
        self.state = SequenceState(
            number, sequence.tokens, sequence.cache, self.chooser, limit, params.draft, params.scope
        )
        """What drafting needs of the request."""
        self._stream = TextStream(tokenizer, params.stop, params.keep_special)
        self._first_token_at: float | None = None
        self._text: list[str] = []
        self._shown = 0  # parts of _text already given out
        self._given = self.prompt_length  # tokens already given out
        self._sources: list[str | None] = []  # of the tokens not given out yet, as in Piece
        self._rejected: list[int | None] = []
        self._logprobs: list[TokenLogprobs] = []

    @property
    def tokens(self) -> list[int]:
        """Prompt and answer so far."""
        return self.sequence.tokens

    @property
    def answer(self) -> list[int]:
        """The generated tokens."""
        return self.tokens[self.prompt_length :]

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self.finish_reason is not None or self.error is not None

    @property
    def decoding(self) -> bool:
        """Whether the prompt is done."""
        return len(self.tokens) > self.prompt_length

    @property
    def needs_logits(self) -> bool:
        """Whether the most likely token is not enough to choose, or to report."""
        return self.chooser.needs_logits or self.params.logprobs is not None

    def emitter(self, most_likely: Ints, logits: Floats | None) -> Callable[[int], int | None]:
        """The `emit` of `speculation.walk`: chooses, appends and checks for the end, one token at a time.

        most_likely, logits: of the row of the last certain token, and then of each draft node.
        """

        def emit(node: int) -> int | None:
            if self.finish_reason is not None:
                return None
            row = None if logits is None else logits[node + 1]
            own = row.copy() if row is not None and self.params.logprobs is not None else None
            token = self.chooser.choose(int(most_likely[node + 1]), row, len(self.tokens))
            if token is None:
                self.problem = self.chooser.problem
                self._finish("stop")
                return None
            if own is not None and self.params.logprobs is not None:
                self._logprobs.append(logprobs_of(own, token, self.params.logprobs))
            self._append(token)
            return token

        return emit

    def account(self, verdict: Verdict, draft: Draft, verify: TargetPass, draft_seconds: float) -> None:
        """Counts a pass that emitted `verdict.tokens`; the seconds are those of the whole batch."""
        bonus = len(verdict.tokens) - len(verdict.accepted)
        self._sources += [reported(draft.nodes[node].source) for node in verdict.accepted] + [None] * bonus
        self._rejected += [None] * len(verdict.accepted) + [verdict.rejected] * bonus
        now = time.perf_counter()
        if self._first_token_at is None:  # the pass that ended the prompt
            self._first_token_at = now
            self.stats.prefill_seconds = now - self.started
            return
        stats = self.stats
        stats.passes.append(verify)
        stats.decoded_tokens += len(verdict.tokens)
        stats.drafted += len(draft)
        stats.accepted += len(verdict.accepted)
        stats.draft_seconds += draft_seconds
        stats.decode_seconds = now - self._first_token_at
        for index, node in enumerate(draft):
            stats.count(reported(node.source), node.depth, index in verdict.accepted)

    def take_piece(self) -> Piece:
        """What came since the last call."""
        with self.lock:
            return self._take_piece()

    def _take_piece(self) -> Piece:
        text = "".join(self._text[self._shown :])
        tokens = tuple(self.tokens[self._given :])
        sources, self._sources = tuple(self._sources), []
        rejected, self._rejected = tuple(self._rejected), []
        logprobs = tuple(self._logprobs[self._given - self.prompt_length :])
        self._shown, self._given = len(self._text), len(self.tokens)
        stats = self.stats if self.finish_reason else None
        return Piece(text, tokens, sources, rejected, logprobs, self.finish_reason, stats)

    def output(self) -> RequestOutput:
        """The finished answer. Raises what ended the request, if it failed."""
        if self.error is not None:
            raise self.error
        with self.lock:
            return self._output()

    def _output(self) -> RequestOutput:
        assert self.finish_reason is not None
        prompt = tuple(self.tokens[: self.prompt_length])
        logprobs = None if self.params.logprobs is None else tuple(self._logprobs)
        text = "".join(self._text)
        return RequestOutput(prompt, tuple(self.answer), text, self.finish_reason, self.stats, logprobs)

    def _append(self, token: int) -> None:
        self.tokens.append(token)
        self.chooser.push(token)
        if token in self._end_tokens:
            self._finish("stop")
            return
        early = len(self.tokens) - self.prompt_length <= self.params.min_tokens
        self._text.append(self._stream.push(token, watch=not early))
        if self._stream.stopped or self.chooser.complete:
            self.problem = self.chooser.problem
            self._finish("stop")
        elif len(self.tokens) >= self.state.limit:
            self._finish("length")

    def _finish(self, reason: FinishReason) -> None:
        self.finish_reason = reason
        rest = self._stream.flush()
        self._text.append(rest)
        if self._stream.stopped and reason == "length":  # the held-back end completed a stop text
            self.finish_reason = "stop"
