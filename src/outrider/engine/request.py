"""One request: its tokens, how the next is chosen, and when it ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from outrider.arrays import Floats, Ints
from outrider.cache import Sequence as CachedSequence
from outrider.checkpoints.config import Suppressed
from outrider.drafters.protocol import SequenceState
from outrider.drafters.tree import Draft, reported
from outrider.engine.media import Medium
from outrider.engine.outputs import FinishReason, Piece, RequestOutput, RequestStats, StopReason, TargetPass
from outrider.engine.text import TextStream
from outrider.sampling.choice import TokenChooser
from outrider.sampling.constraint import Constraint, GrammarCompiler
from outrider.sampling.logprobs import TokenLogprobs, logprobs_of
from outrider.sampling.params import SamplingParams
from outrider.sampling.thoughts import ThoughtConstraint, ThoughtState
from outrider.speculation.walk import Verdict
from outrider.tokenizer import Tokenizer


class Request:
    """A running request.

    `sequence.tokens` are prompt and answer so far; those past `sequence.cache.length` have no keys and values yet.
    """

    def __init__(
        self,
        number: int,
        params: SamplingParams,
        sequence: CachedSequence,
        media: Sequence[Medium],
        tokenizer: Tokenizer,
        end_tokens: frozenset[int],
        grammars: GrammarCompiler,
        suppressed: Suppressed,
    ) -> None:
        self.number, self.params, self.sequence, self.media = number, params, sequence, media
        self.prompt_length = len(sequence.tokens)
        self.stats = RequestStats(prompt_tokens=self.prompt_length)
        self.finish_reason: FinishReason | None = None
        self.problem: str | None = None
        """Why the grammar could not continue, if that ended the answer."""
        self.error: Exception | None = None
        """The error within this request that ended it."""
        self.started = time.perf_counter()
        ends, stops = frozenset() if params.ignore_end else end_tokens, frozenset(params.stop_token_ids)
        self._end_tokens = ends | stops
        form, thoughts = None, params.thoughts
        if params.grammar is not None:
            # A stop token of text may come where the grammar allows its text; a control token, where it may end.
            form = grammars.constraint(params.grammar, ends | (stops & tokenizer.hidden))
        constraint: Constraint | ThoughtConstraint | None = form
        if thoughts is not None and (form is not None or thoughts.budget is not None):
            constraint = ThoughtConstraint(thoughts, form, grammars.text_tokens)
        self._thought = ThoughtState(thoughts is not None and thoughts.opened)
        self.chooser = TokenChooser(params, sequence.tokens, self._end_tokens, constraint, suppressed)
        prediction: Sequence[int] | str = params.prediction or ()
        if isinstance(prediction, str):
            prediction = tokenizer.encode(prediction, add_bos=False)
        self.state = SequenceState(
            *(number, sequence.tokens, sequence.cache, self.chooser, sequence.limit),
            draft=params.draft,
            lora=params.lora,
            scope=params.scope,
            prediction=prediction,
        )
        """What drafting needs of the request."""
        self._stream = TextStream(tokenizer, params.stop, params.keep_special)
        self._first_token_at: float | None = None
        self._text: list[str] = []
        self._shown = 0  # parts of _text that are in a piece
        self._given = 0  # tokens of the answer that are in a piece
        self._sources: list[str | None] = []  # by token of the answer, as in Piece
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
        """Whether it has finished or failed."""
        return self.finish_reason is not None or self.error is not None

    @property
    def decoding(self) -> bool:
        """Whether the prompt is computed."""
        return len(self.tokens) > self.prompt_length

    @property
    def waits_for_memory(self) -> bool:
        """Whether it cannot begin before others end."""
        return not self.sequence.runs and self.sequence.awaited is None

    @property
    def needs_logits(self) -> bool:
        """Whether the argmax alone does not suffice to choose, or to report."""
        return self.chooser.needs_logits or self.params.logprobs is not None

    def emitter(self, most_likely: Ints, logits: Floats | None) -> Callable[[int], int | None]:
        """The `emit` of `speculation.walk`: chooses, appends and checks for the end, one token at a time.

        Args:
            most_likely, logits: of the row of the last certain token, then of each draft node.
        """

        def emit(node: int) -> int | None:
            if self.finish_reason is not None:
                return None
            row = None if logits is None else logits[node + 1]
            if row is not None:
                self.chooser.suppress(row)
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

    @property
    def stop_reason(self) -> StopReason:
        """See `RequestOutput`."""
        last = self.tokens[-1]
        ended = self.ended and self.decoding and last in self.params.stop_token_ids
        return last if ended else self._stream.stopped

    def take_piece(self) -> Piece:
        """What was generated since the last call."""
        new = slice(self._given, None)
        text, tokens = "".join(self._text[self._shown :]), tuple(self.tokens[self.prompt_length + self._given :])
        sources, rejected, logprobs = tuple(self._sources[new]), tuple(self._rejected[new]), tuple(self._logprobs[new])
        self._shown, self._given = len(self._text), self._given + len(tokens)
        stats = self.stats if self.finish_reason else None
        prefilled = 1.0 if self.decoding else self.sequence.cache.length / self.prompt_length
        given = text, tokens, sources, rejected, logprobs, self.finish_reason, stats, self.stop_reason
        return Piece(*given, prefilled)

    def output(self) -> RequestOutput:
        """The finished answer. Raises what ended the request, if it failed."""
        if self.error is not None:
            raise self.error
        assert self.finish_reason is not None
        prompt = tuple(self.tokens[: self.prompt_length])
        logprobs = None if self.params.logprobs is None else tuple(self._logprobs)
        return RequestOutput(
            *(prompt, tuple(self.answer), "".join(self._text), self.finish_reason, self.stats, logprobs),
            stop_reason=self.stop_reason,
        )

    def _append(self, token: int) -> None:
        self.tokens.append(token)
        self.chooser.push(token)
        if token in self._end_tokens:
            self._finish("stop")
            return
        early, thinks = len(self.tokens) - self.prompt_length <= self.params.min_tokens, self._thinks(token)
        self._text.append(self._stream.push(token, watch=not early and not thinks))
        if self._stream.stopped is not None or self.chooser.complete:
            self.problem = self.chooser.problem
            self._finish("stop")
        elif len(self.tokens) >= self.state.limit:
            self._finish("length")

    def _thinks(self, token: int) -> bool:
        """Whether a token of the answer belongs to a thought; counts it."""
        if self.params.thoughts is None:
            return False
        before, self._thought = self._thought, self._thought.after(token, self.params.thoughts)
        self.stats.reasoning_tokens = self._thought.tokens
        return before.inside or self._thought.inside

    def _finish(self, reason: FinishReason) -> None:
        self.finish_reason = reason
        self._text.append(self._stream.flush())
        if self._stream.stopped is not None and reason == "length":  # the held-back end completed a stop text
            self.finish_reason = "stop"
