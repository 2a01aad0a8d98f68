"""Sampling parameters: how tokens are chosen, when a request stops, how it drafts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from numbers import Integral, Real
from typing import Any, Literal, NamedTuple

from outrider.errors import UsageError, given
from outrider.sampling.grammar import Grammar
from outrider.sampling.thoughts import Thoughts

DraftSetting = Literal["auto", "off"] | int
MAX_DRAFT = 63
"""Most tokens of one draft."""
MAX_LOGPROBS = 20
"""Most alternatives reported per position, as in the OpenAI API."""
MAX_ANSWERS = 64
"""Most answers to one prompt."""
MAX_CACHE_SALT = 512
"""Longest `cache_salt`, in characters."""
_LEAST_TEMPERATURE = 1e-30
"""Below, noise vanishes in the rounding of logits, and logits divided by the temperature may overflow."""
_MOST_BIAS = 1e30
"""Finite in float32 after any repetition penalty."""
_INTEGERS = ("max_tokens", "top_k", "min_tokens", "seed", "n")
_NUMBERS = ("temperature", "top_p", "min_p", "typical_p", "repetition_penalty", "presence_penalty", "frequency_penalty")
_FLAGS = ("ignore_end", "cache_prompt")


class Scope(NamedTuple):
    """Requests of equal scopes may share keys, values and texts; others never do."""

    salt: str
    lora: str | None


@dataclass(frozen=True)
class SamplingParams:
    """Parameters of one request.

    Args:
        max_tokens: most tokens to generate.
        temperature: 0 is greedy; above 0 the logits are divided by it and sampled.
        top_k: keep only the k most likely tokens; 0 (or -1) keeps all.
        top_p: keep the smallest set of most likely tokens whose probability reaches this; 1 keeps all.
        min_p: keep tokens at least this many times as likely as the most likely; 0 keeps all.
        typical_p: keep the tokens whose surprise is nearest to the expected one, as many as reach this probability
            (locally typical sampling, Meister et al. 2022); 1 keeps all.
        repetition_penalty: divides positive logits of tokens in prompt or answer by it, and multiplies negative ones;
            above 1 discourages repeating, 1 changes nothing (Keskar et al. 2019).
        presence_penalty: subtracted from the logits of tokens in the answer.
        frequency_penalty: subtracted from them once per occurrence in the answer.
        logit_bias: token id -> addend of its logit; -infinity excludes the token.
        min_tokens: no end token, stop token or stop text ends the answer before it has this many tokens.
        logprobs: report the log-probability of every token, and of this many of the likeliest at its position; None
            reports none. They are the model's: before penalties, biases, temperature and filters.
        seed: the noise of a sampled token is a function of (seed, position, token); the same seed gives the same text.
        n: answers to each prompt, with seeds `seed`, `seed + 1`, ...; see `RequestOutput.outputs`.
        stop: texts that end the answer; they are not part of it.
        stop_token_ids: tokens that end the answer as the model's end tokens do: part of its `token_ids`, not of its
            text. With a grammar, a token of text ends the answer where the grammar allows that text, a control token
            where the grammar may end.
        ignore_end: continue after one of the model's end tokens (for benchmarks).
        grammar: constrains the answer, which ends where the grammar does. Tokens that do not fit are masked after
            penalties and biases and before the filters; where biases exclude all that fit, the grammar wins.
        thoughts: how the answer's thoughts are written: no stop text matches within one, a grammar begins after the
            first, and their budget closes them. None for answers without thoughts.
        keep_special: control tokens whose text is part of the answer's text; all others have none.
        draft: "auto" plans the draft length at every step, "off" never drafts, a number fixes the draft length. The
            tokens are the same.
        prediction: a text, or token ids, that the answer will mostly repeat, such as a file before an edit: drafts
            follow it. The tokens are the same.
        cache_prompt: reuse keys and values of earlier requests (the prefix cache) and draft from their texts
            (`LLM(lookup_history=...)`), and keep this request's for later ones. False does none of that. The tokens
            are the same.
        cache_salt: the prefix cache and the shared history of requests are separate for each salt. Requests of
            different salts never share anything.
        lora: the adapter, by its name in `LLM(lora=...)`; None for the model as it is. Requests of different adapters
            never share anything either.

    Raises:
        UsageError: a value out of its range or of a wrong type; the message names it.
    """

    max_tokens: int = 128
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    min_tokens: int = 0
    logprobs: int | None = None
    seed: int = 0
    stop: tuple[str, ...] = ()
    ignore_end: bool = False
    grammar: Grammar | None = None
    keep_special: tuple[str, ...] = ()
    draft: DraftSetting = "auto"
    cache_prompt: bool = True
    cache_salt: str = ""
    n: int = 1
    stop_token_ids: tuple[int, ...] = ()
    thoughts: Thoughts | None = None
    prediction: str | tuple[int, ...] = ""
    lora: str | None = None

    def __post_init__(self) -> None:
        self._convert()
        p = self
        for name, requirement, fits in (
            ("max_tokens", "be at least 1", p.max_tokens >= 1),
            ("temperature", "lie between 0 and 100", 0 <= p.temperature <= 100),
            ("top_k", "be 0 (all) or more", p.top_k >= 0),
            ("n", f"lie between 1 and {MAX_ANSWERS}", 1 <= p.n <= MAX_ANSWERS),
            ("top_p", "be above 0 and at most 1", 0 < p.top_p <= 1),
            ("min_p", "lie between 0 and 1", 0 <= p.min_p <= 1),
            ("typical_p", "be above 0 and at most 1", 0 < p.typical_p <= 1),
            ("repetition_penalty", "lie between 0.01 and 100", 0.01 <= p.repetition_penalty <= 100),
            ("presence_penalty", "lie between -100 and 100", -100 <= p.presence_penalty <= 100),
            ("frequency_penalty", "lie between -100 and 100", -100 <= p.frequency_penalty <= 100),
            ("min_tokens", f"lie between 0 and max_tokens ({p.max_tokens})", 0 <= p.min_tokens <= p.max_tokens),
            ("logprobs", f"lie between 0 and {MAX_LOGPROBS}, or be None", 0 <= (p.logprobs or 0) <= MAX_LOGPROBS),
            ("seed", "lie between 0 and 2**64 - 1", 0 <= p.seed < 2**64),
        ):
            _require(fits, f"{name} must {requirement}, not {getattr(p, name)}")
        for token, bias in p.logit_bias.items():
            expected = f"must lie between -{_MOST_BIAS:g} and {_MOST_BIAS:g}, or be -infinity"
            known = abs(bias) <= _MOST_BIAS or bias == -math.inf
            _require(known, f"the logit_bias of token {token} {expected}, not {bias}")
        if p.temperature < _LEAST_TEMPERATURE:
            self._set("temperature", 0.0)

    def _convert(self) -> None:
        """Converts every field to its own type, from NumPy's numbers and lists too."""
        for name in _INTEGERS:
            self._set(name, _integer(name, getattr(self, name)))
        for name in _NUMBERS:
            value = getattr(self, name)
            known = isinstance(value, Real) and not isinstance(value, bool)
            _require(known, f"{name} must be a number, not {given(value)}")
            self._set(name, float(value))
        for name in _FLAGS:
            value = getattr(self, name)
            _require(isinstance(value, bool), f"{name} must be True or False, not {given(value)}")
        if self.logprobs is not None:
            self._set("logprobs", _integer("logprobs", self.logprobs))
        if self.top_k == -1:  # "all" in vLLM
            self._set("top_k", 0)
        self._set("stop", _texts("stop", self.stop))
        self._set("keep_special", _texts("keep_special", self.keep_special))
        ends = self.stop_token_ids
        _require(isinstance(ends, Iterable), f"stop_token_ids must be a list of token ids, not {given(ends)}")
        self._set("stop_token_ids", tuple(_integer("an entry of stop_token_ids", token) for token in ends))
        bias: Any = {} if self.logit_bias is None else self.logit_bias
        _require(isinstance(bias, Mapping), f"logit_bias must be a dict of token ids and numbers, not {given(bias)}")
        for token, value in bias.items():
            _integer("a token id in logit_bias", token)
            _require(isinstance(value, Real), f"the logit_bias of token {token} must be a number, not {given(value)}")
        self._set("logit_bias", dict(bias))
        known = self.grammar is None or isinstance(self.grammar, Grammar)
        _require(known, f"grammar must be a Grammar, such as Grammar.json_schema(...), not {given(self.grammar)}")
        _require(all(self.stop), "a stop text must not be empty")
        if self.draft not in ("auto", "off"):
            known = isinstance(self.draft, int) and not isinstance(self.draft, bool) and 0 <= self.draft <= MAX_DRAFT
            _require(known, f'draft must be "auto", "off" or a number from 0 to {MAX_DRAFT}, not {self.draft!r}')
        known = isinstance(self.cache_salt, str) and len(self.cache_salt) <= MAX_CACHE_SALT
        expected = f"a text of at most {MAX_CACHE_SALT} characters"
        _require(known, f"cache_salt must be {expected}, not {self.cache_salt!r:.40}")
        prediction = self.prediction
        known = isinstance(prediction, Iterable) and not isinstance(prediction, bytes | Mapping)
        _require(known, f"prediction must be a text or a list of token ids, not {given(prediction)}")
        if not isinstance(prediction, str):
            ids = tuple(_integer("an entry of prediction", token) for token in prediction)
            self._set("prediction", ids)
        known = self.lora is None or isinstance(self.lora, str)
        _require(known, f"lora must be the name of an adapter, or None, not {given(self.lora)}")
        known = self.thoughts is None or isinstance(self.thoughts, Thoughts)
        _require(known, f"thoughts must be a Thoughts or None, not {given(self.thoughts)}")

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def each(self) -> list[SamplingParams]:
        """The parameters of each of the `n` answers."""
        if self.n == 1:
            return [self]
        return [replace(self, n=1, seed=(self.seed + number) % 2**64) for number in range(self.n)]

    @property
    def scope(self) -> Scope | None:
        """The scope whose requests share a prefix cache and a history with this one; None if it shares nothing."""
        return Scope(self.cache_salt, self.lora) if self.cache_prompt else None

    @property
    def filters(self) -> bool:
        """Whether a filter excludes unlikely tokens."""
        return (self.top_k, self.top_p, self.min_p, self.typical_p) != (0, 1.0, 0.0, 1.0)

    @property
    def greedy(self) -> bool:
        """Whether the most likely token is chosen, without noise or filters."""
        return self.temperature == 0


def params_with(defaults: Mapping[str, Any], **given: Any) -> SamplingParams:
    """Parameters of which `given` are set; the others are what a checkpoint recommends, else the field's own default.

    Args:
        defaults: fields of SamplingParams, as in `Checkpoint.sampling`.

    Raises:
        UsageError: as SamplingParams. A recommended `min_tokens` gives way to a smaller `max_tokens`.
    """
    chosen = {**defaults, **given}
    if "min_tokens" not in given and "min_tokens" in defaults:
        chosen["min_tokens"] = min(defaults["min_tokens"], chosen.get("max_tokens", SamplingParams.max_tokens))
    return SamplingParams(**chosen)


def _require(holds: bool, problem: str) -> None:
    if not holds:
        raise UsageError(problem)


def _integer(name: str, value: object) -> int:
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise UsageError(f"{name} must be a whole number, not {given(value)}")
    return int(value)


def _texts(name: str, value: Any) -> tuple[str, ...]:
    texts = (value,) if isinstance(value, str) else tuple(value or ()) if isinstance(value, Iterable | None) else None
    if texts is None or not all(isinstance(text, str) for text in texts):
        raise UsageError(f"{name} must be a text or a list of texts, not {given(value)}")
    return texts
