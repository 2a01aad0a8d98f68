"""What a server serves and how: plain data, from which any process can make the server."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from outrider.machine import available_bytes
from outrider.server.host import Host
from outrider.server.keys import ApiKeys
from outrider.server.limits import Limits
from outrider.server.model_set import ModelSet
from outrider.server.slot import Slot
from outrider.server.sources import Sources


@dataclass(frozen=True)
class Setup:
    """See the module.

    Args:
        models: the names of each, by what it is loaded from.
        required: those of them that must be there; the first of these is loaded before the server starts.
        options: of loading that all models have, as `load_model` takes them.
        own: options of loading that the first model alone has.
        scheduling: arguments of each model's `Scheduler`.
        keys, limits, ignore_media: see `Host`.
        idle_unload: see `ModelSet`.
        cors, loopback: see `create_app`.
        response_store: the folder of a `ResponseStore`.
    """

    models: Mapping[str, Sequence[str]]
    required: Collection[str]
    options: Mapping[str, Any]
    scheduling: Mapping[str, int]
    own: Mapping[str, Any] = field(default_factory=dict)
    keys: ApiKeys = field(default_factory=ApiKeys)
    limits: Limits = field(default_factory=Limits)
    ignore_media: bool = False
    idle_unload: float | None = None
    cors: Collection[str] = ()
    loopback: str | None = None
    response_store: Path | None = None

    def model_set(self, available: Callable[[], int] | None = None) -> ModelSet:
        """The models, of which the first required one is loaded.

        Args:
            available: bytes of memory for them; None for all that there is.

        Raises:
            OutriderError: a required model cannot be opened, or the first cannot be loaded.
        """
        slots, host = self._slots(shared=available is not None)
        models = ModelSet(slots, host, idle_unload=self.idle_unload, available=available or available_bytes)
        if self.required:
            models.load_first()
        return models

    def check(self) -> None:
        """Opens the models, without loading one. Raises OutriderError if a required one cannot be opened."""
        _, host = self._slots(shared=True)
        host.stop()

    def _slots(self, *, shared: bool) -> tuple[list[Slot], Host]:
        host = Host(keys=self.keys, limits=self.limits, ignore_media=self.ignore_media)
        sources = Sources(host, self.options, self.scheduling, shared=shared)
        return sources.slots(self.models, self.own, self.required), host
