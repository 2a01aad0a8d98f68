"""What is found out before anything is measured: which models a server has, and what one request takes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NoReturn

import httpx

from outrider.bench.endpoint.answer import Answer, Failure, FailureKind
from outrider.bench.endpoint.arm import Arm
from outrider.bench.endpoint.client import Client
from outrider.errors import UsageError

_PASSING = (FailureKind.REFUSED, FailureKind.SERVER_ERROR, FailureKind.TIMEOUT, FailureKind.CUT_OFF)
"""What may go better the next time: such a failure is reported, and the measurement goes on."""


@dataclass(frozen=True)
class Probed:
    """A server that can be measured.

    arm: with what it understands.
    first: the answer to the request that is not counted.
    """

    arm: Arm
    first: Answer


async def models_at(client: Client, base: str) -> list[str]:
    """The names of the server's models; empty if it does not list them.

    Raises:
        UsageError: nothing listens there, it does not speak HTTP, or it wants another key.
    """
    try:
        response = await client.get(f"{base}/models")
    except httpx.TimeoutException as error:
        raise UsageError(f"{base} gave no answer in time: check the URL, and whether the server is busy") from error
    except httpx.ConnectError as error:
        raise UsageError(f"nothing listens at {base} ({error}): start the server, or correct the URL") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise UsageError(f"what listens at {base} does not speak HTTP ({error}): correct the URL") from error
    if response.status_code in (401, 403):
        _wrong_key(client, base, response.status_code)
    try:
        listed = response.json()["data"] if response.status_code == 200 else []
        return [str(model["id"]) for model in listed]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []


async def probe(client: Client, arm: Arm, prompt: str) -> Probed:
    """Sends the one request that is not counted. An arm without a model gets the first that the server lists.

    Raises:
        UsageError: requests like this one cannot succeed; the sentence says why.
    """
    models = await models_at(client, arm.base)
    if not arm.body("")["model"]:
        if not models:
            raise UsageError(
                f"{arm.base}/models lists no models, as an OpenAI-compatible server does: correct the URL, "
                "or name the model with --model"
            )
        arm = replace(arm, model=models[0])
    first = await client.ask(arm, 0, prompt)
    if _unknown_stream_options(first.failure):
        arm = replace(arm, with_usage=False)
        first = await client.ask(arm, 0, prompt)
    if first.failure is not None and first.failure.kind not in _PASSING:
        _explain(client, arm, first.failure, models)
    return Probed(arm, first)


def _unknown_stream_options(failure: Failure | None) -> bool:
    return failure is not None and failure.kind is FailureKind.REJECTED and "stream_options" in failure.message


def _explain(client: Client, arm: Arm, failure: Failure, models: list[str]) -> NoReturn:
    """Why no request can succeed."""
    if failure.status in (401, 403):
        _wrong_key(client, arm.base, failure.status)
    model: Any = arm.body("")["model"]
    if failure.kind is FailureKind.REJECTED and models and model not in models:
        raise UsageError(
            f"{arm.address} refused the model {model} ({failure.status}: {failure.message}): "
            f"it lists {', '.join(models)}; name one with --model"
        )
    if failure.status == 404:
        raise UsageError(
            f"{arm.address} answered 404 ({failure.message}): this is not an OpenAI-compatible server, or it lacks "
            f"this route or the model {model}; correct the URL or --model, or try --{_other_route(arm)}"
        )
    if failure.kind is FailureKind.REJECTED:
        raise UsageError(
            f"{arm.address} refused the request ({failure.status}: {failure.message}): change what it names, "
            f"with --extra or another option, or try --{_other_route(arm)}"
        )
    if failure.kind is FailureKind.MALFORMED:
        raise UsageError(f"{arm.address} does not stream as an OpenAI server does ({failure.message}): correct the URL")
    raise UsageError(f"{arm.address} could not be asked ({failure.message}): see whether the server is still there")


def _other_route(arm: Arm) -> str:
    return "completions" if arm.chat else "chat"


def _wrong_key(client: Client, base: str, status: int) -> NoReturn:
    problem = "does not accept the API key" if client.has_key else "wants an API key"
    raise UsageError(f"{base} {problem} ({status}): give the right one with --api-key or in OPENAI_API_KEY")
