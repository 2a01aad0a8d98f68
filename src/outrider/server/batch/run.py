"""Answering a batch: its requests go to the server's application in this process, many at once."""

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
    return asyncio.run(_answer_all(ModelSet([slot], host), answers, at_once, report))


def _loaded(*_: object) -> Service:
    raise AssertionError("a batch's model is loaded before")


async def _answer_all(models: ModelSet, answers: Answers, at_once: int, report: Callable[[Counts], None]) -> Counts:
    counts, left, (slot,) = Counts(), iter(answers.left), models.slots
    transport = httpx.ASGITransport(app=create_app(models), raise_app_exceptions=False)

    async def work(client: httpx.AsyncClient) -> None:
        for request in left:
            model = request.model if request.model in slot.adapters else slot.name
            response = await client.post(request.url, json={**request.body, "model": model})
            _count(counts, response)
            if response.status_code < 500:
                answers.write(request, response.status_code, response.headers[HEADER], response.json())
            report(counts)

    models.start()
    try:
        async with (
            httpx.AsyncClient(transport=transport, base_url="http://batch", timeout=None) as client,
            asyncio.TaskGroup() as group,
        ):
            for _ in range(at_once):
                group.create_task(work(client))
    finally:
        await models.stop()
    return counts


def _count(counts: Counts, response: httpx.Response) -> None:
    if response.status_code >= 500:
        counts.failed += 1
        counts.problem = _message(response)
        return
    counts.answered += 1
    if response.status_code >= 400:
        counts.refused += 1
        return
    usage: dict[str, Any] = response.json()["usage"]
    for prompt, completion in (("prompt_tokens", "completion_tokens"), ("input_tokens", "output_tokens")):
        counts.prompt_tokens += usage.get(prompt, 0)
        counts.completion_tokens += usage.get(completion, 0)


def _message(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"status {response.status_code}"
