"""Answering a batch, many requests at once: by the server's application in this process, or by a server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx

from outrider import LLM
from outrider.server.access import HEADER
from outrider.server.app import create_app
from outrider.server.batch.answers import Answers
from outrider.server.host import Host
from outrider.server.limits import Limits
from outrider.server.model_set import ModelSet
from outrider.server.scheduler import Scheduler
from outrider.server.service import Service
from outrider.server.slot import Slot


@dataclass
class Counts:
    """What has come of the requests of a run.

    Attributes:
        answered: written, `refused` among them, which were bad requests (status 4xx).
        failed: left out, so that another run tries them again; `problem` is the last one's error.
        prompt_tokens, completion_tokens: of the answers.
    """

    answered: int = 0
    refused: int = 0
    failed: int = 0
    problem: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0


def answer_all(
    llm: LLM, name: str, answers: Answers, *, running: int, report: Callable[[Counts], None] = lambda _: None
) -> Counts:
    """Answers what is left, in the order of the file, at most `running` requests in a pass.

    Requests that name an adapter get it; all others are for the model, whatever they call it.

    Args:
        name: the model's, in the answers.
        report: called after each request.
    """
    at_once, limits = (
        min(2 * running, len(answers.left)),
        Limits(waiting=None, body=None),
    )  # some are encoded while others run
    host, slot = Host(limits=limits), Slot([name], _loaded, adapters=tuple(llm.parts.adapters))
    scheduler = Scheduler(llm, running=running, waiting=at_once, limits=limits, finished=slot.metrics.finished)
    slot.put(Service(llm, scheduler, host, name=name))
    return asyncio.run(_answer_here(ModelSet([slot], host), answers, at_once, report))


def answer_all_at(
    url: str,
    answers: Answers,
    *,
    model: str | None,
    key: str | None,
    running: int,
    report: Callable[[Counts], None] = lambda _: None,
) -> Counts:
    """Answers what is left by a server, or by replicas behind a router; `running` requests are with it at once.

    Args:
        model: for all requests; None for the one that each names.
        key: sent as bearer token.
        report: called after each request.
    """
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    client = httpx.AsyncClient(base_url=url.rstrip("/").removesuffix("/v1"), headers=headers, timeout=None)
    return asyncio.run(_answer_all(client, answers, lambda named: model or named, running, report))


def _loaded(*_: object) -> Service:
    raise AssertionError("a batch's model is loaded before")


async def _answer_here(models: ModelSet, answers: Answers, at_once: int, report: Callable[[Counts], None]) -> Counts:
    (slot,) = models.slots
    transport = httpx.ASGITransport(app=create_app(models), raise_app_exceptions=False)
    client = httpx.AsyncClient(transport=transport, base_url="http://batch", timeout=None)
    models.start()
    try:
        names = {adapter: adapter for adapter in slot.adapters}
        return await _answer_all(client, answers, lambda name: names.get(name, slot.name), at_once, report)
    finally:
        await models.stop()


async def _answer_all(
    client: httpx.AsyncClient,
    answers: Answers,
    named: Callable[[str], str],
    at_once: int,
    report: Callable[[Counts], None],
) -> Counts:
    counts, left = Counts(), iter(answers.left)

    async def work() -> None:
        for request in left:
            try:
                response = await _answer(client, request.url, {**request.body, "model": named(request.model)})
                body = response.json()
            except (httpx.TransportError, ValueError) as error:
                counts.failed, counts.problem = counts.failed + 1, f"{client.base_url} gives no answer: {error}"
            else:
                if _count(counts, response.status_code, body):
                    answers.write(request, response.status_code, response.headers.get(HEADER, ""), body)
            report(counts)

    async with client, asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(work())
    return counts


async def _answer(client: httpx.AsyncClient, url: str, body: dict[str, Any]) -> httpx.Response:
    """The response; a server whose queue is full is asked again."""
    while True:
        response = await client.post(url, json=body)
        if response.status_code != 429:
            return response
        pause = response.headers.get("Retry-After", "")
        await asyncio.sleep(int(pause) if pause.isdigit() else 1)


def _count(counts: Counts, status: int, body: Any) -> bool:
    """Counts a response; whether it is the request's answer. An API key that is refused says nothing of the request."""
    if status >= 500 or status in (401, 403):
        counts.failed += 1
        counts.problem = _message(status, body)
        return False
    counts.answered += 1
    if status >= 400:
        counts.refused += 1
        return True
    usage: dict[str, Any] = body["usage"]
    for prompt, completion in (("prompt_tokens", "completion_tokens"), ("input_tokens", "output_tokens")):
        counts.prompt_tokens += usage.get(prompt, 0)
        counts.completion_tokens += usage.get(completion, 0)
    return True


def _message(status: int, body: Any) -> str:
    try:
        return str(body["error"]["message"])
    except (KeyError, TypeError):
        return f"status {status}"
