"""The file of requests: a JSON object a line, in OpenAI's batch format. All lines are checked before work starts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from outrider.errors import UsageError, given

ROUTES = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages")
_ALONE = ("stream", "background")
"""Fields of a body that make no sense where answers go to a file."""


@dataclass(frozen=True)
class BatchRequest:
    """One line.

    Attributes:
        id: derived from the line's content, so that an answer belongs to this request and not to another of the same
            `custom_id`.
        body: without `model`.
        model: as the body names it; empty for the served one.
    """

    id: str
    custom_id: str
    url: str
    model: str
    body: dict[str, Any]


def read_requests(path: Path) -> list[BatchRequest]:
    """The requests of a file, in its order.

    Raises:
        UsageError: the file cannot be read, or a line is no request; names the line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        problem = f" ({error.strerror}): check its path" if isinstance(error, OSError) else ": save it as UTF-8 text"
        raise UsageError(f"{path} cannot be read{problem}") from error
    found: dict[str, BatchRequest] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            request = _request(line)
            if request.custom_id in found:
                raise UsageError(f"custom_id {given(request.custom_id)} stands in an earlier line: each needs its own")
        except UsageError as error:
            raise UsageError(f"{path}, line {number}: {error}") from error
        found[request.custom_id] = request
    if not found:
        raise UsageError(f"{path} has no requests: a line is {_EXAMPLE}")
    return list(found.values())


_EXAMPLE = (
    '{"custom_id": "1", "method": "POST", "url": "/v1/completions", "body": {"prompt": "Hello", "max_tokens": 20}}'
)


def _request(line: str) -> BatchRequest:
    try:
        fields = json.loads(line)
    except ValueError as error:
        raise UsageError(f"not JSON ({error}): a line is {_EXAMPLE}") from error
    if not isinstance(fields, dict):
        raise UsageError(f"not an object but {given(fields)}: a line is {_EXAMPLE}")
    custom_id, url, body = (fields.get(name) for name in ("custom_id", "url", "body"))
    if not isinstance(custom_id, str) or not custom_id:
        raise UsageError(f"custom_id has to be a text, not {given(custom_id)}")
    if fields.get("method", "POST") != "POST":
        raise UsageError(f"method has to be POST, not {given(fields['method'])}")
    if url not in ROUTES:
        raise UsageError(f"url has to be {_or(ROUTES)}, not {given(url)}")
    if not isinstance(body, dict):
        raise UsageError(f"body has to be an object, not {given(body)}")
    model = body.get("model") or ""
    if not isinstance(model, str):
        raise UsageError(f"model has to be a text, not {given(model)}")
    for name in _ALONE:
        if body.get(name):
            raise UsageError(f"{name} is not possible in a batch: leave it out")
    content = json.dumps([custom_id, url, body], sort_keys=True)
    number = hashlib.sha256(content.encode()).hexdigest()[:32]
    return BatchRequest(f"batch_req_{number}", custom_id, url, model, {k: v for k, v in body.items() if k != "model"})


def model_of(path: Path, requests: Iterable[BatchRequest], adapters: Iterable[str]) -> str:
    """The model that all requests of a file name, adapters aside.

    Raises:
        UsageError: they name none, or several.
    """
    names = sorted({request.model for request in requests} - {""} - set(adapters))
    if len(names) == 1:
        return names[0]
    problem = f"the requests name {len(names)} models ({', '.join(names[:5])})" if names else "no request names a model"
    raise UsageError(f"{path}: {problem}: choose one for all with --model")


def _or(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"
