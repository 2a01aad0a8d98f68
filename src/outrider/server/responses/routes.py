"""`POST /v1/responses`, and the routes of stored responses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.responses import Response

from outrider.chat.markers import Markers
from outrider.server.conversation import chat_generation
from outrider.server.errors import ApiError
from outrider.server.event_stream import EventStream
from outrider.server.generation import Generation
from outrider.server.openai.shapes import ERRORS, STREAM
from outrider.server.responses.events import ResponseWriter
from outrider.server.responses.items import Item, with_ids
from outrider.server.responses.live import Keeping, LiveResponse, Responses
from outrider.server.responses.request import Prompted, ResponsesRequest
from outrider.server.responses.shapes import Deleted, InputTokens, ItemList, ResponseObject, as_json
from outrider.server.responses.store import MAX_CONVERSATION_BYTES, NotStoredError, Stored, TooLargeError
from outrider.server.responses.truncation import latest_that_fits
from outrider.server.route import ApiRoute, Call
from outrider.server.sampling import MAX_CLIENT_SALT

router = APIRouter(prefix="/v1/responses", route_class=ApiRoute, responses=ERRORS)

MAX_LISTED = 100
_TOO_LARGE = f"the conversation has more than {MAX_CONVERSATION_BYTES >> 20} MiB: begin a new one"


@dataclass(frozen=True)
class _Prepared:
    """A request that is ready to run. `input`: its own items, with ids."""

    scope: bytes
    input: list[Item]
    generation: Generation
    markers: Markers


@router.post("", response_model=ResponseObject, responses={200: STREAM})
async def create(call: Call, asked: ResponsesRequest) -> Response:
    """The model's next turn."""
    service, responses = call.service, _responses(call)
    response = asked.response(asked.model or service.name, service.sampling)
    prepared = await call.host.in_thread(_prepared, call, asked, response.id, asked.logprobs)
    run = await service.begin(prepared.generation)
    writer = ResponseWriter(
        response,
        prepared.markers.reader(),
        asked.toolbox,
        service.tokenizer,
        summary=asked.summarized,
        opaque=asked.opaque,
    )
    keeping = Keeping(responses, prepared.scope, prepared.input) if asked.store else None
    live = LiveResponse(call.host, run, writer, keeping)
    if asked.background:
        assert call.lease is not None
        live.start(call.lease.again())
        return EventStream(call, None, live.follow()) if asked.stream else _answer(response)
    if asked.stream:
        return EventStream(call, run, live.stream())
    return _answer(await live.whole(*await call.outputs(run)))


@router.post("/input_tokens", response_model=InputTokens)
async def input_tokens(call: Call, asked: Prompted) -> Response:
    """The length of the prompt that a request makes."""
    prepared = await call.host.in_thread(_prepared, call, asked, "", None)
    return _answer(InputTokens(input_tokens=len(prepared.generation.prompts[0][0])))


def _query(**schemas: dict[str, Any]) -> dict[str, Any]:
    """Describes the parameters of a query."""
    salt = {"cache_salt": {"type": "string", "maxLength": MAX_CLIENT_SALT}}
    described = [{"in": "query", "name": name, "schema": schema} for name, schema in (salt | schemas).items()]
    return {"parameters": described}


_AFTER = {"type": "integer", "minimum": -1}
_LIMIT = {"type": "integer", "minimum": 1, "maximum": MAX_LISTED}


@router.get(
    "/{response_id}",
    response_model=ResponseObject,
    responses={200: STREAM},
    openapi_extra=_query(stream={"type": "boolean"}, starting_after=_AFTER),
)
async def retrieve(call: Call, response_id: str) -> Response:
    """A stored response, or one that is being generated; the events of one in the background."""
    live = _responses(call).live(_scope(call), response_id)
    if call.query_params.get("stream") in ("true", "1"):
        if live is None or not live.in_background:
            await _stored(call, response_id)
            raise ApiError(400, "only a response in the background can be streamed again", param="stream")
        return EventStream(call, None, live.follow(_whole_number(call, "starting_after", -1)))
    return _answer(live.response) if live else await _answer_stored(call, (await _stored(call, response_id)).response)


@router.delete("/{response_id}", response_model=Deleted, openapi_extra=_query())
async def delete(call: Call, response_id: str) -> Response:
    """Forgets a response. One that is being generated is cancelled."""
    responses, scope = _responses(call), _scope(call)
    live = responses.live(scope, response_id)
    if live is not None:
        live.drop()
    if live is None or live.stored:
        await _from_store(call, responses.store.delete, scope, response_id)
    return _answer(Deleted(id=response_id))


@router.post("/{response_id}/cancel", response_model=ResponseObject, openapi_extra=_query())
async def cancel(call: Call, response_id: str) -> Response:
    """Cancels a response that is being generated; one that has ended stays as it is."""
    live = _responses(call).live(_scope(call), response_id)
    if live is None:
        return await _answer_stored(call, (await _stored(call, response_id)).response)
    live.cancel()
    return _answer(live.response)


@router.get(
    "/{response_id}/input_items",
    response_model=ItemList,
    openapi_extra=_query(
        limit=_LIMIT, order={"enum": ["asc", "desc"]}, after={"type": "string", "description": "An item's id."}
    ),
)
async def input_items(call: Call, response_id: str) -> Response:
    """All that a response was made from: its own input, and the items of the responses that it continues."""
    stored, query = await _stored(call, response_id), call.query_params
    store = _responses(call).store
    before = await _from_store(call, store.conversation, _scope(call), stored.previous)
    items = [*before, *stored.input]
    if query.get("order", "desc") != "asc":
        items.reverse()
    after, limit = query.get("after"), _whole_number(call, "limit", 20)
    if not 1 <= limit <= MAX_LISTED:
        raise ApiError(400, f"limit is {limit}: give a number from 1 to {MAX_LISTED}", param="limit")
    ids = [str(item["id"]) for item in items]
    if after is not None and after not in ids:
        raise ApiError(404, f"Item with id '{after}' not found.", param="after")
    first = 0 if after is None else ids.index(after) + 1
    page, names = items[first : first + limit], ids[first : first + limit] or [""]
    more = len(items) > first + limit
    return await _answer_stored(call, ItemList(data=page, first_id=names[0], last_id=names[-1], has_more=more))


def _answer(body: BaseModel) -> Response:
    return Response(as_json(body), media_type="application/json")


async def _answer_stored(call: Call, body: BaseModel | dict[str, Any]) -> Response:
    """What a request of any size left is written in a worker thread."""
    return Response(await call.host.in_thread(as_json, body), media_type="application/json")


def _responses(call: Call) -> Responses:
    responses: Responses = call.app.state.responses
    return responses


def _scope(call: Call) -> bytes:
    """That of a request without a body."""
    salt = call.query_params.get("cache_salt", "")
    if len(salt) > MAX_CLIENT_SALT:
        raise ApiError(
            400, f"cache_salt has {len(salt)} characters: give at most {MAX_CLIENT_SALT}", param="cache_salt"
        )
    return call.host.keys.scope(call.key, salt)


def _whole_number(call: Call, name: str, default: int) -> int:
    given = call.query_params.get(name, str(default))
    try:
        return int(given)
    except ValueError as error:
        raise ApiError(400, f"{name} is {given!r:.40}: give a whole number", param=name) from error


async def _stored(call: Call, response_id: str) -> Stored:
    found: Stored = await _from_store(call, _responses(call).store.get, _scope(call), response_id)
    return found


async def _from_store(call: Call, function: Callable[..., Any], *arguments: object) -> Any:
    try:
        return await call.host.in_thread(function, *arguments)
    except NotStoredError as error:
        raise ApiError(404, f"Response with id '{error}' not found.", param="response_id") from error
    except TooLargeError as error:
        raise ApiError(400, _TOO_LARGE, param="response_id") from error


def _prepared(call: Call, asked: Prompted, response_id: str, logprobs: int | None) -> _Prepared:
    """Reads what the request continues and makes the prompt; runs in a worker thread."""
    store, scope = _responses(call).store, call.host.keys.scope(call.key, asked.cache_salt or "")
    try:
        before = store.conversation(scope, asked.previous_response_id)
    except NotStoredError as error:
        message = f"Previous response with id '{error}' not found."
        raise ApiError(404, message, param="previous_response_id", code="previous_response_not_found") from error
    except TooLargeError as error:
        raise ApiError(400, _TOO_LARGE, param="previous_response_id") from error
    try:
        own = with_ids(store.resolved(scope, asked.items), response_id)
    except NotStoredError as error:
        raise ApiError(404, f"Item with id '{error}' not found.", param="input") from error
    salt = call.cache_salt(asked.cache_salt)

    def make(items: Sequence[Item]) -> tuple[Generation, Markers]:
        return chat_generation(call.service, asked.turn(items), asked, cache_salt=salt, logprobs=logprobs)

    items = [*before, *own]
    generation, markers = latest_that_fits(make, items) if asked.truncation == "auto" else make(items)
    return _Prepared(scope, own, generation, markers)
