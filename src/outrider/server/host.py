"""What the models of a server share: API keys, limits, and threads for what would block the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from outrider.server.errors import ApiError, api_error
from outrider.server.file_handles import limit_accept_errors
from outrider.server.keys import ApiKeys
from outrider.server.limits import Limits
from outrider.server.metrics import LimitMetrics
from outrider.server.turns import Turns

_ENCODERS, _COMPILERS = 2, 4
"""Bodies parsed and encoded, and grammars compiled, at once: either may take some hundred times its size in memory,
which the system's allocator keeps for each thread."""

_OTHERS = 4
"""Threads of `asyncio.to_thread`, for scoring and the response store: by default there may be 32."""

Result = TypeVar("Result")


class Host:
    """See the module.

    Args:
        keys: API keys, of which clients send one as bearer token.
        limits: of requests.
        ignore_media: put "[image]" and the like in the place of content that is no text.

    `turns` are those of the models' passes.
    """

    def __init__(
        self, *, keys: ApiKeys | None = None, limits: Limits | None = None, ignore_media: bool = False
    ) -> None:
        self.keys, self.limits, self.ignore_media = keys or ApiKeys(), limits or Limits(), ignore_media
        self.metrics, self.turns = LimitMetrics(), Turns()
        self._encoders = ThreadPoolExecutor(_ENCODERS, "outrider-encode")
        self._compilers = ThreadPoolExecutor(_COMPILERS, "outrider-compile")

    def start(self) -> None:
        """Prepares the event loop that serves; to be called from it."""
        loop = asyncio.get_running_loop()
        limit_accept_errors(loop)
        loop.set_default_executor(ThreadPoolExecutor(_OTHERS, "outrider-other"))

    def stop(self) -> None:
        """Ends the threads."""
        for pool in (self._encoders, self._compilers):
            pool.shutdown(wait=False, cancel_futures=True)

    async def in_thread(self, function: Callable[..., Result], *arguments: object) -> Result:
        """Runs a function in a worker thread, for what takes time in proportion to the request."""
        return await asyncio.get_running_loop().run_in_executor(self._encoders, partial(function, *arguments))

    async def compile(self, function: Callable[..., Result], *arguments: object) -> Result:
        """Runs a function in a thread for grammars."""
        return await asyncio.get_running_loop().run_in_executor(self._compilers, partial(function, *arguments))

    def error(self, error: Exception) -> ApiError:
        """What a client gets for an error; counts those that a limit caused."""
        found = api_error(error)
        if found.limit is not None:
            self.metrics.exceeded(found.limit)
        return found
