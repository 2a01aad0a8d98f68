"""The models of a server: which are loaded, who uses them, and which one leaves when another needs its memory."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Self, TypeVar

from outrider.errors import OutriderError
from outrider.machine import available_bytes, size
from outrider.server.errors import ApiError
from outrider.server.host import Host
from outrider.server.memory_shares import Shares, unused_cache_bytes
from outrider.server.scheduler import SHUTTING_DOWN
from outrider.server.service import Service
from outrider.server.slot import Slot

Result = TypeVar("Result")

_CHECK_SECONDS = 0.2
"""How often those that wait look whether the server drains: signal handlers wake nobody."""
_log = logging.getLogger("outrider.server")


class Lease:
    """A model in use: it stays loaded until the lease ends. Whoever works on after that takes a lease of its own."""

    def __init__(self, models: ModelSet, slot: Slot) -> None:
        self._models, self.slot, self._counted = models, slot, False

    def take(self) -> bool:
        """Begins it, if the model is ready."""
        if self.slot.state == "ready" and not self._counted:
            self._count()
        return self.slot.state == "ready"

    async def ready(self) -> None:
        """Begins it, once the model is loaded. One that is being unloaded is loaded again.

        Raises:
            OutriderError: it cannot be loaded; the message says why.
            ApiError: the server is shutting down, or others use the memory for too long.
        """
        await self._models.until(lambda: self.slot.state != "unloading")
        self._count()
        if self.slot.state != "ready":
            await self._models.loaded(self.slot)

    def again(self) -> Lease:
        """Another one, of the same model."""
        lease = Lease(self._models, self.slot)
        lease._count()
        return lease

    def end(self) -> None:
        """Ends it. Does nothing the second time."""
        if self._counted:
            self._counted = False
            self.slot.leases -= 1
            self.slot.last_use = time.monotonic()
            self._models.changed()

    def _count(self) -> None:
        self.slot.leases += 1
        self._counted = True

    @property
    def service(self) -> Service:
        """The model, once it is ready."""
        assert self.slot.service is not None
        return self.slot.service

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


class ModelSet:
    """All models of a server.

    One is loaded when a request names it. Before that, models that no request uses leave, least recently used first,
    until it fits into memory; if that is not enough, the least recently used of the others takes no more requests, and
    leaves when those that it has are answered. Loads and unloads come one after the other, in a thread of their own.

    Args:
        slots: the models; a request without a name is for the first.
        idle_unload: seconds after its last request at which a model is unloaded; None for never.
        available: bytes of memory that this process can allocate.
    """

    def __init__(
        self,
        slots: Sequence[Slot],
        host: Host,
        *,
        idle_unload: float | None = None,
        available: Callable[[], int] = available_bytes,
    ) -> None:
        self.slots, self.host = tuple(slots), host
        self._by_name = {name: slot for slot in slots for name in (*slot.names, *slot.adapters)}
        self.idle_unload, self._available = idle_unload, available
        self._thread = ThreadPoolExecutor(1, "outrider-load")
        self._one_at_a_time = asyncio.Lock()
        self._changed = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None
        self.draining = False
        self._drains_until = math.inf  # monotonic clock

    # -- names --------------------------------------------------------------------------------------------------------

    @property
    def names(self) -> list[str]:
        """Names of all models with their aliases and adapters."""
        return list(self._by_name)

    def find(self, name: str, param: str | None = "model") -> Slot:
        """The model that a request names. Raises ApiError, which lists all, if there is none."""
        if not name:
            return self.slots[0]
        if (slot := self._by_name.get(name)) is None:
            message = f"there is no model {name}: this is {' or '.join(self._by_name)}"
            raise ApiError(404, message, kind="not_found_error", param=param, code="model_not_found")
        return slot

    def lease(self, name: str) -> Lease:
        """A lease of the model with this name, which has not begun. Raises as `find`."""
        return Lease(self, self.find(name))

    # -- the life of the server ---------------------------------------------------------------------------------------

    def load_first(self) -> None:
        """Loads the first model, before the server starts. Raises OutriderError."""
        first = self.slots[0]
        first.put(first.load(first, self._share(first), None))

    def start(self) -> None:
        """Starts what is loaded; to be called from the event loop that serves."""
        self.host.start()
        for service in self._services:
            service.scheduler.start()
        if self.idle_unload is not None:
            self._watching = asyncio.create_task(self._watch(self.idle_unload))

    def drain(self) -> None:
        """Accepts no more requests; see `Scheduler.drain`. Signal handlers call it."""
        if not self.draining:
            self._drains_until = time.monotonic() + self.host.limits.stopping
            self.draining = True
            for service in self._services:
                service.scheduler.drain()

    async def stop(self) -> None:
        """Drains; returns when all jobs and threads have ended."""
        self.drain()
        if self._watching is not None:
            self._watching.cancel()
        for service in self._services:
            await asyncio.to_thread(service.scheduler.stop)
        await asyncio.gather(*(s.loading for s in self.slots if s.loading is not None), return_exceptions=True)
        self._thread.shutdown()
        self.host.stop()

    @property
    def timed_out(self) -> bool:
        """Whether the time for draining is over."""
        return time.monotonic() >= self._drains_until

    @property
    def counts(self) -> tuple[int, int]:
        """Jobs (in batches, in queues) of all models."""
        counts = [service.scheduler.counts for service in self._services]
        return sum(running for running, _ in counts), sum(waiting for _, waiting in counts)

    @property
    def alive(self) -> bool:
        """Whether the threads of all loaded models run."""
        return all(service.scheduler.alive for service in self._services)

    def check_ready(self) -> None:
        """Raises ApiError if the server is shutting down."""
        if self.draining:
            raise ApiError(503, SHUTTING_DOWN, kind="server_error")

    def changed(self) -> None:
        """Wakes those that wait in `until`."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def until(self, condition: Callable[[], bool], seconds: float = math.inf) -> None:
        """Waits until a condition holds. Raises ApiError if the server is shutting down, TimeoutError after so long."""
        end = time.monotonic() + seconds
        while not condition():
            self.check_ready()
            if time.monotonic() >= end:
                raise TimeoutError
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), _CHECK_SECONDS)

    # -- loading and unloading ----------------------------------------------------------------------------------------

    async def loaded(self, slot: Slot) -> None:
        """Loads a model; who asks meanwhile shares the load, which goes on when they leave. Raises as `Lease.ready`."""
        if (loading := slot.loading) is None:
            loading = slot.loading = asyncio.create_task(self._load(slot))
            loading.add_done_callback(lambda done: done.cancelled() or done.exception())  # perhaps nobody is left
            slot.state = "loading"
        while not (await asyncio.wait([loading], timeout=_CHECK_SECONDS))[0]:
            self.check_ready()
        loading.result()

    async def _load(self, slot: Slot) -> None:
        try:
            async with self._one_at_a_time:
                await self._make_room(slot)
                began = time.perf_counter()
                service = await self._in_thread(slot.load, slot, self._share(slot), self.check_ready)
                service.scheduler.start()
                slot.put(service)
                if self.draining:  # since its last step
                    service.scheduler.drain()
                _log.info("%s is loaded, in %.1f s", slot.name, time.perf_counter() - began)
        except ApiError:
            raise
        except OutriderError as error:
            _log.error("%s cannot be loaded: %s", slot.name, error)
            raise ApiError(503, f"{slot.name} cannot be loaded: {error}", kind="server_error") from error
        finally:
            slot.loading = None
            if slot.service is None:
                slot.state = "unloaded"
            self.changed()

    def _share(self, slot: Slot) -> Shares | None:
        if slot.needs is None:
            return None
        others = [other.needs for other in self.slots if other is not slot and other.service is None]
        return Shares.of(slot.needs, self._free(), [needs.total for needs in others if needs is not None])

    async def _make_room(self, slot: Slot) -> None:
        """Unloads models until this one fits, or no other is loaded."""
        needed = 0 if slot.needs is None else slot.needs.total
        while needed > self._free() and (others := [other for other in self.slots if other.state == "ready"]):
            oldest = min(others, key=lambda other: (not other.idle, other.last_use))
            await self._unload(oldest, f"{slot.name} needs {size(needed)} of memory")

    async def _unload(self, slot: Slot, why: str) -> None:
        """Unloads a model once its requests are answered; takes no new ones. Raises as `Lease.ready`."""
        slot.state, limit = "unloading", self.host.limits.waiting
        try:
            await self.until(lambda: not slot.leases, math.inf if limit is None else limit)
            await self._in_thread(slot.take().close)
            _log.info("%s is unloaded: %s", slot.name, why)
        except TimeoutError:
            message = f"{why}, which requests to {slot.name} have used for {limit:g} seconds: try again later"
            raise ApiError(503, message, kind="timeout_error", limit="queue") from None
        finally:
            slot.state = "unloaded" if slot.service is None else "ready"
            self.changed()

    async def _watch(self, seconds: float) -> None:
        """Unloads what is idle for so long."""
        while True:
            await asyncio.sleep(min(seconds / 4, 5.0))
            for slot in self.slots:
                if slot.idle and time.monotonic() - slot.last_use >= seconds:
                    async with self._one_at_a_time:
                        if slot.idle:
                            await self._unload(slot, f"idle for {seconds:g} seconds")

    async def _in_thread(self, function: Callable[..., Result], *arguments: object) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    @property
    def _services(self) -> list[Service]:
        return [slot.service for slot in self.slots if slot.service is not None]

    def _free(self) -> int:
        """Bytes that neither the system nor the caches of loaded models may come to need."""
        return self._available() - sum(map(unused_cache_bytes, self._services))
