"""One model of a server, loaded or not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from outrider.fit import Needs
from outrider.server.memory_shares import Shares
from outrider.server.metrics import Metrics
from outrider.server.service import Service
from outrider.tokenizer.encoders import Encoders

State = Literal["unloaded", "loading", "ready", "unloading"]
Load = Callable[["Slot", Shares | None, Callable[[], None] | None], Service]


@dataclass(frozen=True)
class About:
    """What a model can do: most positions of a request, whether it has a chat template, and which drafters are active
    (empty until it is loaded)."""

    context: int
    chat: bool
    drafters: Sequence[str] = ()


class Slot:
    """See the module. Only the event loop changes it.

    Args:
        names: in the API, the model's own first.
        adapters: names of its adapters.
        load: loads it, in any thread; called with the slot, with its share of the memory (None for all of it), and
            with a function that raises an error when the load is to end (None to show its progress instead).
        needs: its memory; None if nobody else uses any.
        about: what is known before it is loaded.
        encoders: of its tokenizer, kept so that no load builds them; see `tokenizer.encoders`.

    Attributes:
        service: the loaded model, in the states ready and unloading.
        leases: requests that use it, or wait while it is loaded.
        last_use: when the last lease ended; monotonic clock.
        loading: the load, in the state loading.
    """

    def __init__(
        self,
        names: Sequence[str],
        load: Load,
        *,
        adapters: Sequence[str] = (),
        needs: Needs | None = None,
        about: About | None = None,
        encoders: Encoders | None = None,
    ) -> None:
        self.names, self.load, self.adapters = tuple(names), load, tuple(adapters)
        self.needs, self._before, self.encoders = needs, about, encoders
        self.metrics = Metrics()
        self.state: State = "unloaded"
        self.service: Service | None = None
        self.leases, self.last_use = 0, 0.0
        self.loading: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        """Its name in the API."""
        return self.names[0]

    @property
    def about(self) -> About | None:
        """What it can do, as far as is known; None for a model that was never opened."""
        if self.service is None:
            return self._before
        parts = self.service.parts
        return About(self.service.context, parts.chat is not None, parts.engine.planner.sources)

    @property
    def idle(self) -> bool:
        """Whether it could be unloaded at once."""
        return self.state == "ready" and not self.leases

    def put(self, service: Service) -> None:
        """Makes it ready."""
        self.service, self.state, self.last_use = service, "ready", time.monotonic()
        self._before = self.about

    def take(self) -> Service:
        """The service, which leaves the slot."""
        assert self.service is not None
        taken, self.service = self.service, None
        return taken
