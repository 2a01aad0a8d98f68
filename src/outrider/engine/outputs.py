"""The output of a request: text, tokens, statistics."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Literal, NamedTuple

from outrider.chat.calls import Call
from outrider.sampling.logprobs import TokenLogprobs

FinishReason = Literal["stop", "length"]
StopReason = str | int | None
"""The stop text or stop token id that ended an answer; None for the model's own end token, and at a limit."""


class TargetPass(NamedTuple):
    """A target pass of decoding. Rows and wall-clock seconds are those of the whole batch."""

    rows: int
    seconds: float


@dataclass
class RequestStats:
    """Cost of one request, and its drafting. Times are wall-clock seconds.

    `passes` are those of decoding, in order; the first token comes from prefill. `reused_tokens` are prompt tokens
    found in the prefix cache, `reused_without_state` those of them of which a drafter had to do without what it keeps
    in the pages (`Drafter.state`). `reasoning_tokens` are those of thoughts, without their control tokens.
    """

    prompt_tokens: int = 0
    reused_tokens: int = 0
    reused_without_state: int = 0
    drafted: int = 0
    accepted: int = 0
    drafted_by_depth: list[int] = field(default_factory=list)
    accepted_by_depth: list[int] = field(default_factory=list)
    drafted_by_source: dict[str, int] = field(default_factory=dict)
    accepted_by_source: dict[str, int] = field(default_factory=dict)
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
    draft_seconds: float = 0.0
    load_seconds: float = 0.0
    decoded_tokens: int = 0
    reasoning_tokens: int = 0
    passes: list[TargetPass] = field(default_factory=list)

    @property
    def target_passes(self) -> int:
        """Target passes of decoding."""
        return len(self.passes)

    @property
    def verify_seconds(self) -> float:
        """Total verify time."""
        return sum(of.seconds for of in self.passes)

    @property
    def tokens_per_pass(self) -> float:
        """Tokens emitted by decode passes / decode passes; 1 without drafting or decode passes."""
        return self.decoded_tokens / self.target_passes if self.target_passes else 1.0

    @property
    def acceptance_rate(self) -> float:
        """Accepted / drafted tokens; 0 without drafted ones."""
        return self.accepted / self.drafted if self.drafted else 0.0

    @property
    def decode_tokens_per_second(self) -> float:
        """Tokens after the first, per second of decoding."""
        return self.decoded_tokens / self.decode_seconds if self.decode_seconds else 0.0

    def count(self, source: str, depth: int, accepted: bool) -> None:
        """Counts a verified draft token."""
        for counts, by in ((self.drafted_by_depth, 1), (self.accepted_by_depth, int(accepted))):
            counts.extend([0] * (depth + 1 - len(counts)))
            counts[depth] += by
        for totals, by in ((self.drafted_by_source, 1), (self.accepted_by_source, int(accepted))):
            totals[source] = totals.get(source, 0) + by

    def as_dict(self) -> dict[str, object]:
        """The fields of `--json`."""
        return {name: getattr(self, name) for name in _REPORTED}


_REPORTED = (
    *(
        "prompt_tokens",
        "reused_tokens",
        "reused_without_state",
        "target_passes",
        "drafted",
        "accepted",
        "tokens_per_pass",
        "acceptance_rate",
    ),
    *("prefill_seconds", "decode_seconds", "decode_tokens_per_second", "draft_seconds", "verify_seconds"),
    *("load_seconds", "drafted_by_depth", "accepted_by_depth", "drafted_by_source", "accepted_by_source"),
)


@dataclass(frozen=True)
class Piece:
    """The next part of a streamed answer: the tokens of one pass.

    `text` is final and never ends in half a character. `sources[i]` names the drafter that had proposed token i; None
    where the model chose it without or against a draft, and in the second case `rejected[i]` is the drafted token.
    `logprobs` are empty unless requested. The last piece has a `finish_reason`, the
    `stop_reason` (see `RequestOutput`) and the `stats`. `prefilled` is the fraction of the prompt whose keys and values
    are there, from 0 to 1.
    """

    text: str
    token_ids: tuple[int, ...]
    sources: tuple[str | None, ...]
    rejected: tuple[int | None, ...]
    logprobs: tuple[TokenLogprobs, ...] = ()
    finish_reason: FinishReason | None = None
    stats: RequestStats | None = None
    stop_reason: StopReason = None
    prefilled: float = 1.0

    @property
    def drafted(self) -> tuple[bool, ...]:
        """Whether each token was an accepted draft."""
        return tuple(source is not None for source in self.sources)


@dataclass(frozen=True)
class RequestOutput:
    """A finished answer. `token_ids` are all generated tokens, an end token included; `text` has neither end tokens nor
    the stop text. `logprobs` has an entry for each token, if requested. `stop_reason` is the stop text, or the id among
    `stop_token_ids`, that ended it.

    With `SamplingParams.n` above 1 this is the first answer, and `outputs` are all. `reasoning` and `tool_calls` are
    set by `LLM.chat`, which takes them out of `text`.
    """

    prompt_token_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    text: str
    finish_reason: FinishReason
    stats: RequestStats
    logprobs: tuple[TokenLogprobs, ...] | None = None
    others: tuple[RequestOutput, ...] = ()
    reasoning: str = ""
    tool_calls: tuple[Call, ...] = ()
    stop_reason: StopReason = None

    @property
    def outputs(self) -> tuple[RequestOutput, ...]:
        """The `n` answers to this prompt, in the order of their seeds; the first is this one."""
        return (replace(self, others=()), *self.others)

    def as_dict(self) -> dict[str, object]:
        """The object that `outrider run --json` prints."""
        return {
            "text": self.text,
            "token_ids": list(self.token_ids),
            "prompt_tokens": len(self.prompt_token_ids),
            "completion_tokens": len(self.token_ids),
            "finish_reason": self.finish_reason,
            "stats": self.stats.as_dict(),
            **({} if self.logprobs is None else {"logprobs": [asdict(entry) for entry in self.logprobs]}),
        }
