"""The kinds of drafter, one entry each. Nothing else in the package names a kind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from outrider.assembly import cpu_drafter
from outrider.checkpoints.config import AssistantConfig, ModelConfig
from outrider.drafters.by_adapter import MtpByAdapter
from outrider.drafters.grammar import GrammarDrafter
from outrider.drafters.history import HistoryDrafter
from outrider.drafters.lookup import LookupDrafter
from outrider.drafters.mtp import MtpDrafter
from outrider.drafters.prediction import PredictionDrafter
from outrider.drafters.protocol import Drafter
from outrider.models.assistant import check_pair
from outrider.tokenizer import Tokenizer


@dataclass(frozen=True)
class Settings:
    """What drafters are made from.

    Attributes:
        vocabulary: of the target.
        lookup: whether to draft by prompt lookup.
        history: tokens of earlier requests that lookup also covers; 0 for none.
        tokenizer: of the target; None leaves out what needs one.
        recorded: kind -> what its `record` returned.
        by_adapter: adapter with a drafter of its own -> the same for that.
    """

    vocabulary: int
    lookup: bool = True
    history: int = 0
    tokenizer: Tokenizer | None = None
    recorded: Mapping[str, Any] = field(default_factory=dict)
    by_adapter: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Kind:
    """One kind of drafter. `config`, `check` and `record` are for a kind with a checkpoint.

    Attributes:
        make: the drafter, or None where the settings leave it out.
        config: class of its checkpoints' config, by which they are recognized.
        check: (target's config, drafter's config); raises CheckpointError if the two do not fit.
        record: (target's config and weights, drafter's config and weights, thread pool, max_rows=, kv_format=) -> the
            recorded program.
        taps: (target's config, drafter's config or None) -> the layers whose hidden states the drafter requires; see
            `CommittedRows.taps`.
        state_bytes: (target's config, drafter's config or None) -> bytes that the drafter keeps of each position in the
            pages of the prefix cache; see `Drafter.state`. Its `name` is then the kind's.
    """

    name: str
    make: Callable[[Settings], Drafter | None]
    config: type | None = None
    check: Callable[[Any, Any], None] = lambda _target, _drafter: None
    record: Callable[..., Any] = lambda *_, **__: None
    taps: Callable[[ModelConfig, Any], Iterable[int]] = lambda _target, _drafter: ()
    state_bytes: Callable[[ModelConfig, Any], int] = lambda _target, _drafter: 0


def _mtp(settings: Settings) -> Drafter | None:
    recorded: list[tuple[str | None, Mapping[str, Any]]] = [(None, settings.recorded), *settings.by_adapter.items()]
    drafters = {lora: MtpDrafter(of["mtp"], settings.vocabulary) for lora, of in recorded if "mtp" in of}
    return MtpByAdapter(drafters) if drafters.keys() - {None} else drafters.get(None)


KINDS = [
    Kind("prediction", lambda _: PredictionDrafter()),
    Kind("grammar", lambda s: GrammarDrafter(s.tokenizer) if s.tokenizer is not None else None),
    Kind("mtp", _mtp, AssistantConfig, check_pair, cpu_drafter),
    Kind("lookup", lambda s: LookupDrafter() if s.lookup else None),
    Kind("history", lambda s: HistoryDrafter(s.history) if s.lookup and s.history else None),
]
"""In the order in which they propose: a token that several propose is credited to the first."""


def make_drafters(settings: Settings) -> list[Drafter]:
    """A drafter of every kind that the settings allow."""
    return [drafter for kind in KINDS if (drafter := kind.make(settings)) is not None]


def kind_of(config: object) -> Kind | None:
    """The kind that reads a checkpoint with this config; None if it is no drafter's."""
    return next((kind for kind in KINDS if kind.config is not None and isinstance(config, kind.config)), None)


def tapped_layers(target: ModelConfig, drafters: Iterable[object]) -> tuple[int, ...]:
    """The layers of the target that the kinds tap, ascending.

    Args:
        drafters: configs of the drafters' checkpoints.
    """
    layers: set[int] = set()
    for kind, of_kind in _by_kind(drafters):
        for drafter in of_kind:
            layers.update(kind.taps(target, drafter))
    return tuple(sorted(layers))


def state_bytes(target: ModelConfig, drafters: Iterable[object]) -> dict[str, int]:
    """Kind -> bytes that it keeps of each position, of the kinds that keep any; of several drafters, the most.

    Args:
        drafters: configs of the drafters' checkpoints.
    """
    kinds = {kind.name: [kind.state_bytes(target, one) for one in of_kind] for kind, of_kind in _by_kind(drafters)}
    return {name: max(sizes) for name, sizes in kinds.items() if any(sizes)}


def _by_kind(drafters: Iterable[object]) -> Iterator[tuple[Kind, list[object]]]:
    """Every kind with the configs of its drafters: None for one without a checkpoint."""
    configs = list(drafters)
    for kind in KINDS:
        yield kind, [None] if kind.config is None else [one for one in configs if isinstance(one, kind.config)]
