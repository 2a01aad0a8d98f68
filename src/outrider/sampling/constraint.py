"""Grammar constraints: which tokens may come next, after any prefix. llguidance has the automaton."""

from __future__ import annotations

import json
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from outrider.errors import UsageError
from outrider.sampling.grammar import Grammar

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

Mask = npt.NDArray[np.bool_]
PackedMask = npt.NDArray[np.uint8]

_KEPT = 32
_WHITESPACE = r"[ ]|\r?\n[ \t]{0,40}"
"""Between the tokens of JSON: as models write it. With unlimited whitespace, small models write it without end."""
_DEAD_END = "no token fits"
# Limits of work, not of time, so that they apply at the same token everywhere: wide enough for real grammars, and low
# enough that hostile ones (see the tests) do not delay the passes of other requests.
_LIMITS: dict[str, Any] = {
    "initial_lexer_fuel": 1_000_000,
    "step_lexer_fuel": 200_000,
    "step_max_items": 50_000,
    "max_items_in_row": 2_000,
    "max_lexer_states": 30_000,
    "max_grammar_size": 200_000,
    "verbose_errors": False,
}


class Constraint:
    """The tokens that a grammar allows one request: a function of the grammar and of the tokens pushed.

    Drafts are checked on a copy (`after`), so no proposal changes the state.

    Args:
        matcher: at the beginning of the grammar; not shared.
        end_tokens: those that would end the request; allowed exactly where the grammar may end.
        vocabulary: the model's, which may have more tokens than the tokenizer (`words`).
    """

    def __init__(self, matcher: LLMatcher, end_tokens: Collection[int], vocabulary: int, words: int) -> None:
        self._matcher, self._vocabulary, self._words = matcher, vocabulary, words
        self._ends = np.fromiter(end_tokens, np.int64)
        self._end_set = frozenset(end_tokens)
        self._answer: list[int] = []
        self._scout: LLMatcher | None = None
        self._scouted: list[int] = []  # tokens that the scout has consumed

    @property
    def complete(self) -> bool:
        """Whether nothing can follow."""
        return self._matcher.is_stopped()

    @property
    def problem(self) -> str | None:
        """Why the grammar cannot continue, if it cannot: work limit exceeded, or a dead end."""
        return _first_line(self._matcher.get_error()) if self._matcher.is_error() else None

    def allows(self, token: int) -> bool:
        """Whether `token` may come next. Far cheaper than `mask`."""
        return self._allows(self._matcher, token)

    def mask(self) -> Mask:
        """(vocabulary,) bool: which tokens may come next."""
        return self._mask_of(self._matcher)

    def push(self, token: int) -> None:
        """Appends the chosen token."""
        if token not in self._end_set:
            self._answer.append(token)
            self._matcher.consume_token(token)

    def possible(self, path: Sequence[int]) -> bool:
        """Whether the tokens of `path` may come next."""
        return self._after(path) is not None

    def allowed(self, path: Sequence[int], tokens: Iterable[int]) -> list[int]:
        """Those of `tokens` that may come after `path`: a few microseconds for each, where a mask takes up to a
        millisecond."""
        scout = self._after(path)
        return [] if scout is None else [token for token in tokens if self._allows(scout, token)]

    def after(self, path: Sequence[int]) -> Mask | None:
        """As `mask`, after the tokens of `path` too; None if the grammar does not allow them."""
        scout = self._after(path)
        return None if scout is None else self._mask_of(scout)

    def forced(self, path: Sequence[int]) -> bytes:
        """The bytes that every answer has after `path`; a control token is the byte FF and its id in brackets."""
        scout = self._after(path)
        return b"" if scout is None else scout.compute_ff_bytes()

    def packed(self, path: Sequence[int]) -> PackedMask | None:
        """As `after`, without end tokens, one bit for each token, the first in the lowest bit. It costs far less."""
        scout = self._after(path)
        return None if scout is None else np.frombuffer(scout.compute_bitmask(), np.uint8)

    def _after(self, path: Sequence[int]) -> LLMatcher | None:
        """The scout after the tokens of `path`; None if the grammar does not allow them."""
        if self._scout is None:
            self._scout, self._scouted = self._matcher.deep_copy(), list(self._answer)
        scout, wanted = self._scout, [*self._answer, *path]
        common = next(
            (i for i, (a, b) in enumerate(zip(self._scouted, wanted, strict=False)) if a != b),
            min(len(self._scouted), len(wanted)),
        )
        if common < len(self._scouted):
            scout.rollback(len(self._scouted) - common)
            del self._scouted[common:]
        fresh = wanted[common:]
        if any(not 0 <= token < self._words for token in fresh):
            return None
        self._scouted += fresh[: scout.try_consume_tokens(fresh) if fresh else 0]
        if scout.is_error():  # the work limit: use a new copy next time
            self._scout = None
            return None
        if len(self._scouted) < len(wanted):
            return None
        return scout

    def _allows(self, matcher: LLMatcher, token: int) -> bool:
        if token in self._end_set:
            return matcher.is_accepting()
        return token < self._words and matcher.validate_tokens([token]) == 1

    def _mask_of(self, matcher: LLMatcher) -> Mask:
        bits = np.frombuffer(matcher.compute_bitmask(), np.uint8)
        mask = np.zeros(self._vocabulary, np.bool_)
        mask[: self._words] = np.unpackbits(bits, bitorder="little")[: self._words]
        mask[self._ends] = matcher.is_accepting()
        return mask


class GrammarCompiler:
    """Compiles grammars for one model's tokens and caches the latest. Thread-safe.

    Args:
        piece: token -> its bytes; called when the first grammar is compiled.
        words: number of the tokenizer's tokens.
        special: control tokens: a grammar has to name them (`<|channel>`) to allow them.
        vocabulary: number of the model's logits.
    """

    def __init__(self, piece: Callable[[int], bytes], words: int, special: Collection[int], vocabulary: int) -> None:
        self._piece, self._words = piece, min(words, vocabulary)
        self._special = sorted(token for token in special if token < self._words)
        self._vocabulary = vocabulary
        self._tokenizer: LLTokenizer | None = None
        self._compiled: OrderedDict[Grammar, LLMatcher] = OrderedDict()
        self._make_locks()

    def compile(self, grammar: Grammar) -> None:
        """Compiles a grammar, so that `constraint` is quick.

        Raises:
            UsageError: it is wrong, matches nothing, needs a feature that llguidance lacks, or is too complex; or
                llguidance is not installed.
        """
        self._matcher(grammar)

    def constraint(self, grammar: Grammar, end_tokens: Collection[int]) -> Constraint:
        """The constraint of one request. Raises as `compile`."""
        return Constraint(self._matcher(grammar).deep_copy(), end_tokens, self._vocabulary, self._words)

    @property
    def text_tokens(self) -> Mask:
        """(vocabulary,) bool: tokens that stand for text."""
        text = np.arange(self._vocabulary) < self._words
        text[list(self._special)] = False
        return text

    def _make_locks(self) -> None:
        self._lock, self._reading, self._process = threading.Lock(), threading.Lock(), os.getpid()

    def _matcher(self, grammar: Grammar) -> LLMatcher:
        if self._process != os.getpid():  # a forked child: a thread of the parent may have held the locks
            self._make_locks()
        with self._lock:
            if grammar in self._compiled:
                self._compiled.move_to_end(grammar)
                return self._compiled[grammar]
        matcher = self._compile(grammar)  # may take a second, without the lock
        with self._lock:
            self._compiled[grammar] = matcher
            if len(self._compiled) > _KEPT:
                self._compiled.popitem(last=False)
        return matcher

    def _compile(self, grammar: Grammar) -> LLMatcher:
        try:
            from llguidance import LLMatcher, LLParserLimits
        except ImportError as error:
            raise UsageError("holding an answer to a grammar needs llguidance: pip install llguidance") from error
        with self._reading:
            self._tokenizer = self._tokenizer or self._read_vocabulary()
        matcher = LLMatcher(self._tokenizer, _lark_of(grammar), log_level=0, limits=LLParserLimits(**_LIMITS))
        begin = Constraint(matcher.deep_copy(), (), self._vocabulary, self._words)
        possible = begin.problem is None and begin.mask().any()
        if begin.problem is not None and begin.problem != _DEAD_END:
            problem = begin.problem.removeprefix("at 1(8): ").removeprefix("failed to compile JSON schema: ")
            raise UsageError(f"the {grammar.what} cannot be used: {problem}")
        if not possible and not matcher.is_accepting():
            raise UsageError(f"the {grammar.what} matches no text at all")
        return matcher

    def _read_vocabulary(self) -> LLTokenizer:
        from llguidance import LLTokenizer

        vocabulary: Any = _Vocabulary(self._piece, self._words, self._special)
        return LLTokenizer(vocabulary, eos_token=self._words)


class _Vocabulary:
    """A tokenizer in llguidance's interface. Its end token is none of the model's: end tokens depend on the request."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, piece: Callable[[int], bytes], words: int, special: list[int]) -> None:
        self.tokens = [*(_bytes_of(piece, token) for token in range(words)), b"<end of the grammar>"]
        self.special_token_ids = [*special, words]
        self.eos_token_id = words

    def __call__(self, _text: Any) -> list[int]:
        """Never called: with `no_forcing` no text is tokenized."""
        return []


def _bytes_of(piece: Callable[[int], bytes], token: int) -> bytes:
    try:
        return piece(token)
    except UsageError:  # a vocabulary may have gaps; a token without text is never allowed
        return b""


def lark_body(grammar: Grammar) -> str:
    """A schema or a regex as the body of a Lark rule.

    Raises:
        UsageError: the schema is no JSON.
    """
    from llguidance import regex_to_lark

    if grammar.kind == "regex":
        return f"/{regex_to_lark(grammar.text, '')}/"
    try:
        schema = json.loads(grammar.text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the JSON schema is no JSON ({error})") from error
    schema = {} if schema is True else schema
    if isinstance(schema, dict):
        given = schema.get("x-guidance")
        schema["x-guidance"] = {"whitespace_pattern": _WHITESPACE, **(given if isinstance(given, dict) else {})}
    return f"%json {json.dumps(schema, ensure_ascii=False)}"


def _lark_of(grammar: Grammar) -> str:
    """A grammar in llguidance's format.

    Where only one text can follow, llguidance's mask would allow that text's canonical tokens alone, unlike its check
    of a single token. `no_forcing` leaves the choice to the model.
    """
    from llguidance import LLMatcher

    text = grammar.text if grammar.kind == "lark" else f"start: {lark_body(grammar)}"
    return LLMatcher.grammar_from_lark(f'{text}\n%llguidance {{"no_forcing": true}}')


def _first_line(problem: str) -> str:
    if problem.startswith("NoExtension"):
        return _DEAD_END
    return problem.strip().splitlines()[0][:300] if problem.strip() else "llguidance does not say why"
