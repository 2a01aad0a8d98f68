"""Clients as a server meets them: those that read their answer to its end, and those that leave."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct

import httpx
from server.apis import APIS, COMPLETION, Answer, Api
from server.mixed_requests import Case

SECONDS = 120.0
"""No answer takes so long; a client that still waits has been forgotten."""
_SOON = 0.15
_CHUNKS = 12
_SLOW_LINES = 100
"""Lines before each of which a slow reader pauses: the answer is long generated when it has read the first few."""


async def read(client: httpx.AsyncClient, case: Case) -> Answer:
    """Sends a request and reads all of the answer, a stream line by line, slowly if the case says so."""
    headers = {"content-type": "application/json"}
    api = APIS.get(case.path, APIS[COMPLETION])  # an unknown route answers in OpenAI's form
    try:
        async with asyncio.timeout(SECONDS):
            if not case.streams:
                return _whole(await client.post(case.path, content=case.content, headers=headers), api)
            async with client.stream("POST", case.path, content=case.content, headers=headers) as stream:
                if stream.status_code != 200:
                    await stream.aread()
                    return _whole(stream, api)
                lines = []
                async for line in stream.aiter_lines():
                    lines.append(line)
                    if case.pause and len(lines) < _SLOW_LINES:
                        await asyncio.sleep(case.pause)
                return api.read(lines)
    except (httpx.HTTPError, TimeoutError, ValueError, KeyError, IndexError) as problem:
        return Answer(0, broken=f"{type(problem).__name__}: {problem}")


async def leave(host: str, port: int, case: Case) -> str | None:
    """Sends a request and leaves as `case.leaves` says; what the server did wrong meanwhile, or None."""
    content = case.content
    head = (
        f"POST {case.path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(content)}\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection(host, port)
    try:
        async with asyncio.timeout(SECONDS):
            half = case.leaves == "with half a body"
            writer.write(head.encode() + (content[: len(content) // 2] if half else content))
            await writer.drain()
            if case.leaves == "soon":
                await asyncio.sleep(_SOON * case.patience)
            elif case.leaves in ("after some chunks", "with a reset"):
                for _ in range(1 + round(_CHUNKS * case.patience)):
                    if not await reader.readline():
                        break
            elif case.leaves == "half-closed":  # all is said, and the answer may come or not; the end has to
                writer.write_eof()
                await reader.read()
            if case.leaves == "with a reset":
                # No lingering: the other side gets an RST, while it may be writing.
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    except ConnectionError:
        return None
    except TimeoutError:
        return f"the server kept a client that left {case.leaves} waiting for {SECONDS:.0f} s"
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
    return None


def _whole(found: httpx.Response, api: Api) -> Answer:
    body = found.json()
    if found.status_code == 200:
        return api.whole(body)
    return Answer(found.status_code, error=api.error(body), retry_after=found.headers.get("retry-after"))
