"""What runs on the nodes: replicas with the model, and the deployment that Ray's HTTP proxy calls."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace
from typing import Any

from ray.serve.handle import DeploymentHandle
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message

from outrider.claimed_cores import claim_cores
from outrider.machine import available_bytes
from outrider.ray.forwarding import Forwarded, answer
from outrider.server.allocator import return_large_blocks
from outrider.server.app import create_app
from outrider.server.responses.store import ResponseStore
from outrider.server.setup import Setup
from outrider.system import cores_of, permitted_processors


class Entry:
    """What Ray's HTTP proxy calls."""

    def __init__(self, models: DeploymentHandle[Any]) -> None:
        self._models = models

    async def __call__(self, _request: Request) -> Response:
        """The response, which reads the request itself."""
        return Forwarded(self._models)


class Model:
    """A replica.

    Args:
        processors: how many it takes for itself.
        sharing: replicas on a node that share all processors; 0 if each has its own.
    """

    async def __init__(self, setup: Setup, processors: int, sharing: int) -> None:  # type: ignore[misc]
        self._until_the_end = AsyncExitStack()
        return_large_blocks()
        permitted = permitted_processors()
        cores = len(cores_of(permitted).performance)
        threads = setup.options["threads"] or max(1, cores * processors // len(permitted))
        if not sharing:
            claim_cores(threads)
        share = min(threads / cores, 1 / max(sharing, 1))
        setup = replace(setup, options={**setup.options, "threads": threads})
        self._models = setup.model_set(lambda: int(share * available_bytes()))
        store = ResponseStore(setup.response_store)
        self._app = create_app(self._models, loopback=setup.loopback, cors=setup.cors, store=store)
        await self._until_the_end.enter_async_context(self._app.router.lifespan_context(self._app))

    async def answer(self, _key: str | None, scope: dict[str, Any], body: bytes) -> AsyncGenerator[Message, None]:
        """The ASGI messages of a response. The key is for the router."""
        async with aclosing(answer(self._app, scope, body)) as messages:
            async for message in messages:
                yield message

    def check_health(self) -> None:
        """Ray replaces a replica of which this raises an error."""
        if not self._models.alive:
            raise RuntimeError("the engine's thread has ended: see the log")

    async def __del__(self) -> None:
        await self._until_the_end.aclose()
