"""Clients as a server meets them: those that read their answer to its end, and those that leave."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from dataclasses import dataclass, field
from typing import Any

import httpx
from server.mixed_requests import CHAT, Case

SECONDS = 120.0
"""No answer takes so long; a client that still waits has been forgotten."""
_SOON = 0.15
_CHUNKS = 12


@dataclass
class Answer:
    """What came back, in one form for streams and whole answers. Ids and times are left out: they differ by nature.

    error: what the server says is wrong. retry_after: as its header has it. broken: why there is no answer at all.
    """

    status: int
    choices: list[dict[str, Any]] = field(default_factory=list)
    completion_tokens: int = 0
    prompt_tokens: int | None = None
    error: str | None = None
    retry_after: str | None = None
    broken: str | None = None

    def same(self, other: Answer) -> bool:
        """Whether they say the same. Of answers that break off, how far they came is not compared."""
        if self.error is not None or other.error is not None:
            return self.error == other.error
        prompts = {self.prompt_tokens, other.prompt_tokens} - {None}
        numbers = self.completion_tokens == other.completion_tokens and len(prompts) <= 1
        return numbers and self.choices == other.choices

    def unlike(self, other: Answer) -> str:
        """Where they differ first."""
        for name in ("error", "completion_tokens", "prompt_tokens"):
            if getattr(self, name) != getattr(other, name):
                return f"{name}: {getattr(self, name)!r}, {getattr(other, name)!r}"
        for index, (a, b) in enumerate(zip(self.choices, other.choices, strict=False)):
            for name in a:
                if a[name] != b.get(name):
                    one, two = a[name], b.get(name)
                    at = next((i for i, (x, y) in enumerate(zip(one, two or (), strict=False)) if x != y), 0)
                    return f"choice {index}, {name}, from {at} on: {one[at : at + 60]!r}, {two and two[at : at + 60]!r}"
        return f"{len(self.choices)} choices, {len(other.choices)}"


async def read(client: httpx.AsyncClient, case: Case) -> Answer:
    """Sends a request and reads all of the answer."""
    headers = {"content-type": "application/json"}
    try:
        async with asyncio.timeout(SECONDS):
            if not case.streams:
                found = await client.post(case.path, content=case.content, headers=headers)
                return _whole(found, chat=case.path == CHAT)
            async with client.stream("POST", case.path, content=case.content, headers=headers) as stream:
                if stream.status_code != 200:
                    await stream.aread()
                    return _whole(stream, chat=case.path == CHAT)
                return _streamed([line async for line in stream.aiter_lines()], chat=case.path == CHAT)
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


def _whole(found: httpx.Response, *, chat: bool) -> Answer:
    body = found.json()
    if found.status_code != 200:
        error = body["error"]
        if set(error) != {"message", "type", "param", "code"} or not error["message"]:
            return Answer(found.status_code, broken=f"an error without the API's shape: {body}")
        return Answer(found.status_code, error=error["message"], retry_after=found.headers.get("retry-after"))
    choices = []
    for index, choice in enumerate(body["choices"]):
        if choice["index"] != index:
            return Answer(200, broken=f"choice {index} has the index {choice['index']}")
        said = _of_chat(choice["message"]) if chat else {"text": choice["text"]}
        choices.append(
            {**said, "finish_reason": choice["finish_reason"], "logprobs": _places(choice["logprobs"], chat)}
        )
    usage = body["usage"]
    return Answer(200, choices, usage["completion_tokens"], usage["prompt_tokens"])


def _streamed(lines: list[str], *, chat: bool) -> Answer:
    events = [line.removeprefix("data: ") for line in lines if line]
    if not events or events[-1] != "[DONE]":
        return Answer(200, broken="a stream without an end")
    choices: dict[int, dict[str, Any]] = {}
    answer = Answer(200)
    for event in map(json.loads, events[:-1]):
        if "error" in event:
            answer.error = event["error"]["message"]
            continue
        if event.get("usage"):
            answer.prompt_tokens = event["usage"]["prompt_tokens"]
        for part in event["choices"]:
            empty = {"content": "", "reasoning": "", "calls": []} if chat else {"text": ""}
            said = choices.setdefault(part["index"], {**empty, "finish_reason": None, "logprobs": []})
            if said["finish_reason"] is not None:
                return Answer(200, broken=f"choice {part['index']} went on after its end")
            for name, value in (_of_chat(part["delta"]) if chat else {"text": part["text"]}).items():
                said[name] = said[name] + value
            said["finish_reason"] = part["finish_reason"]
            said["logprobs"] += _places(part["logprobs"], chat)
            answer.completion_tokens += len(event["outrider"]["token_ids"])
    answer.choices = [choices[index] for index in sorted(choices)]
    return answer


def _of_chat(message: dict[str, Any]) -> dict[str, Any]:
    """A message, or what a chunk adds to it."""
    calls = [call["function"] for call in message.get("tool_calls") or ()]
    return {
        "content": message.get("content") or "",
        "reasoning": message.get("reasoning_content") or "",
        "calls": [(call["name"], call["arguments"]) for call in calls],
    }


def _places(logprobs: dict[str, Any] | None, chat: bool) -> list[Any]:
    """What is known of each token, place by place."""
    if logprobs is None:
        return []
    if chat:
        return list(logprobs["content"])
    names = ("tokens", "token_logprobs", "top_logprobs", "text_offset")
    return [list(place) for place in zip(*(logprobs[name] for name in names), strict=True)]
