"""Turns a request's body into what the engine takes. All of it may take long, so it runs beside the event loop."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from pydantic import ValidationError

from outrider import LLM, Grammar, SamplingParams
from outrider.chat.messages import MessagesError
from outrider.errors import UsageError
from outrider.server.answers import Form
from outrider.server.problems import ApiError
from outrider.server.schema import ChatRequest, CompletionRequest, Sampled

Wanted = TypeVar("Wanted", bound=Sampled)
Scope = Callable[[str], str]
"""A request's `cache_salt` -> that of its sampling parameters; see `keys.scope_of`."""


@dataclass(frozen=True)
class Prepared:
    """A request that can be submitted once its grammars compile.

    sets: one for each of its answers. grammars: what has to compile, in this order. field: which names them in errors.
    """

    ids: list[int]
    sets: list[SamplingParams]
    form: Form
    grammars: list[Grammar]
    field: str
    stream: bool
    with_usage: bool


class Preparer:
    """Reads requests for one model.

    Args:
        name: the model's, as clients call it.
        ignore_media: see `TurnRequest`.
    """

    def __init__(self, llm: LLM, name: str, *, ignore_media: bool = False) -> None:
        self._prompts, self._tokenizer, self._context = llm.parts.prompts, llm.tokenizer, llm.context
        self._name, self._ignore_media = name, ignore_media

    def completion(self, body: bytes, scope: Scope) -> Prepared:
        """The body of `POST /v1/completions`.

        Raises:
            ApiError, UsageError: it is wrong; the message says where and what to do.
        """
        wanted = self._read(body, CompletionRequest)
        ids = self._prompts.encode(
            wanted.only_prompt, parse_special=wanted.parse_special, add_bos=wanted.add_special_tokens
        )
        field, grammar = _format_of(wanted)
        sets = wanted.params(self._context - len(ids), scope(wanted.cache_salt or ""), wanted.logprobs, grammar)
        form = Form(False, self._name, self._tokenizer, wanted.logprobs is not None)
        return self._prepared(wanted, ids, sets, form, [grammar], field)

    def chat(self, body: bytes, scope: Scope) -> Prepared:
        """The body of `POST /v1/chat/completions`. Raises as `completion`."""
        wanted = self._read(body, ChatRequest)
        if self._prompts.template is None:
            problem = f"{self._name} is a base model without a chat template: use /v1/completions"
            raise ApiError(400, "invalid_request_error", problem)
        try:
            turn = self._prompts.turn(wanted.turn(ignore_media=self._ignore_media))
        except MessagesError as error:
            raise ApiError(400, "invalid_request_error", str(error), parameter="messages") from error
        field, grammar = _format_of(wanted)
        logprobs = wanted.top_logprobs if wanted.logprobs else None
        room = self._context - len(turn.ids)
        sets = wanted.params(room, scope(wanted.cache_salt or ""), logprobs, grammar)
        sets = [turn.params(params) for params in sets]
        form = Form(True, self._name, self._tokenizer, logprobs is not None, turn.markers)
        # What is wrong with the request's own is found before it is a part of the whole.
        return self._prepared(wanted, turn.ids, sets, form, [grammar, sets[0].grammar], field or "tool_choice")

    def _prepared(
        self,
        wanted: Sampled,
        ids: list[int],
        sets: list[SamplingParams],
        form: Form,
        grammars: list[Grammar | None],
        field: str,
    ) -> Prepared:
        self._prompts.check(replace(sets[0], grammar=None))  # the grammars are compiled in other threads
        with_usage = wanted.stream_options is not None and wanted.stream_options.include_usage
        distinct = list(dict.fromkeys(grammar for grammar in grammars if grammar is not None))
        return Prepared(ids, sets, form, distinct, field, wanted.stream, with_usage)

    def _read(self, body: bytes, model: type[Wanted]) -> Wanted:
        try:
            wanted = model.model_validate(json.loads(body))
        except (ValueError, RecursionError) as error:
            raise _explained(error) from error
        if wanted.model not in ("", self._name):
            problem = f"there is no model {wanted.model}: this is {self._name}"
            raise ApiError(404, "not_found_error", problem, parameter="model")
        return wanted


def _explained(error: ValueError | RecursionError) -> ApiError:
    if not isinstance(error, ValidationError):
        return ApiError(400, "invalid_request_error", f"the body is not JSON: {error}")
    first = error.errors(include_url=False, include_context=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    return ApiError(400, "invalid_request_error", f"{place}: {message}" if place else message, parameter=place or None)


def _format_of(wanted: Sampled) -> tuple[str, Grammar | None]:
    try:
        return wanted.form()
    except (ValueError, UsageError) as error:
        raise ApiError(400, "invalid_request_error", str(error), parameter="response_format") from error
