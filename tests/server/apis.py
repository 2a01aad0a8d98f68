"""The routes that generate text, each with what it takes and how its answers are read.

A further route is one more entry of `APIS`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

CHAT, COMPLETION = "/v1/chat/completions", "/v1/completions"
MESSAGES, RESPONSES = "/v1/messages", "/v1/responses"

Body = dict[str, Any]


@dataclass
class Answer:
    """What came back, in one form for all routes, streams and whole answers. Ids and times are left out: they differ by
    nature.

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
                one, two = a[name], b.get(name)
                if one != two and not (isinstance(one, str | list) and isinstance(two, str | list)):
                    return f"choice {index}, {name}: {one!r}, {two!r}"
                if one != two:
                    short = min(len(one), len(two))
                    at = next((i for i in range(short) if one[i] != two[i]), short)
                    return f"choice {index}, {name}, from {at} on: {one[at : at + 60]!r}, {two[at : at + 60]!r}"
        return f"{len(self.choices)} choices, {len(other.choices)}"


class BrokenAnswerError(ValueError):
    """An answer is not what its API promises."""


@dataclass(frozen=True)
class Api:
    """A route.

    ask: the body of a request for so many tokens that continue a text, or answer it.
    whole, streamed: read a body, and the events of a stream.
    error: the sentence of an error's body.
    """

    path: str
    ask: Callable[[str, int], Body]
    whole: Callable[[Body], Answer]
    streamed: Callable[[list[Body]], Answer]
    error: Callable[[Body], str]

    def read(self, lines: list[str]) -> Answer:
        """Reads a stream's lines. Comments come while a prompt waits or is computed."""
        events = [line.removeprefix("data: ") for line in lines if line and not line.startswith((":", "event: "))]
        if self.path in (COMPLETION, CHAT) and (not events or events.pop() != "[DONE]"):
            raise BrokenAnswerError("a stream without an end")
        return self.streamed([json.loads(event) for event in events])


# -- OpenAI's completions and chat -----------------------------------------------------------------------------------


def _openai_error(body: Body) -> str:
    error: Body = body["error"]
    if set(error) != {"message", "type", "param", "code"} or not error["message"]:
        raise BrokenAnswerError(f"an error without the API's shape: {body}")
    return str(error["message"])


def _openai_whole(body: Body, read: Callable[[Body], Body]) -> Answer:
    choices = []
    for index, choice in enumerate(body["choices"]):
        if choice["index"] != index:
            raise BrokenAnswerError(f"choice {index} has the index {choice['index']}")
        choices.append({**read(choice), "finish_reason": choice["finish_reason"]})
    usage = body["usage"]
    return Answer(200, choices, usage["completion_tokens"], usage["prompt_tokens"])


def _openai_streamed(events: list[Body], read: Callable[[Body], Body]) -> Answer:
    choices: dict[int, Body] = {}
    answer = Answer(200)
    for event in events:
        if "error" in event:
            answer.error = _openai_error(event)
            continue
        if event.get("usage"):
            answer.prompt_tokens = event["usage"]["prompt_tokens"]
        for part in event["choices"]:
            found = {**read(part), "finish_reason": part["finish_reason"]}
            said = choices.get(part["index"])
            if said is None:
                choices[part["index"]] = found
            elif said["finish_reason"] is not None:
                raise BrokenAnswerError(f"choice {part['index']} went on after its end")
            else:
                choices[part["index"]] = {n: found[n] if n == "finish_reason" else said[n] + found[n] for n in found}
            answer.completion_tokens += len(event["outrider"]["token_ids"])
    answer.choices = [choices[index] for index in sorted(choices)]
    return answer


def _text(choice: Body) -> Body:
    """A continuation, or a part of one."""
    names = ("tokens", "token_logprobs", "top_logprobs", "text_offset")
    logprobs = choice["logprobs"]
    tokens = [] if logprobs is None else list(map(list, zip(*(logprobs[name] for name in names), strict=True)))
    return {"text": choice["text"], "logprobs": tokens, "prompt": choice.get("prompt_logprobs") or []}


def _turn(choice: Body) -> Body:
    """A turn of the model, or a part of one."""
    message = choice.get("message") or choice.get("delta") or {}
    calls = [call["function"] for call in message.get("tool_calls") or ()]
    return {
        "content": message.get("content") or "",
        "reasoning": message.get("reasoning_content") or "",
        "calls": [(call["name"], call["arguments"]) for call in calls],
        "logprobs": list((choice["logprobs"] or {}).get("content") or ()),
    }


# -- Anthropic's messages --------------------------------------------------------------------------------------------


def _anthropic_error(body: Body) -> str:
    if set(body) != {"type", "error", "request_id"} or body["type"] != "error" or not body["error"]["message"]:
        raise BrokenAnswerError(f"an error without the API's shape: {body}")
    return str(body["error"]["message"])


def _message(body: Body) -> Answer:
    """A message: its blocks in order."""
    blocks = [(block["type"], _held(block)) for block in body["content"]]
    usage = body["usage"]
    read = usage["input_tokens"] + usage["cache_read_input_tokens"]
    ending = {name: body[name] for name in ("stop_reason", "stop_sequence")}
    return Answer(200, [{"blocks": blocks, **ending}], usage["output_tokens"], read)


def _held(block: Body) -> Any:
    """What a content block holds."""
    if block["type"] == "tool_use":
        return block["name"], json.dumps(block["input"])
    return block["thinking" if block["type"] == "thinking" else "text"]


def _message_events(events: list[Body]) -> Answer:
    """Puts the message together from its events, as a client does."""
    message: Body = {}
    blocks: list[Body] = []
    is_open = False
    for event in events:
        match event["type"]:
            case "error":
                return Answer(200, error=_anthropic_error(event))
            case "message_start":
                message = event["message"]
            case "content_block_start":
                if is_open or event["index"] != len(blocks):
                    raise BrokenAnswerError(f"block {event['index']} begins after {len(blocks)} blocks")
                blocks.append({**event["content_block"], "json": ""})
                is_open = True
            case "content_block_delta":
                if not is_open or event["index"] != len(blocks) - 1:
                    raise BrokenAnswerError(f"a delta of block {event['index']}, which is not open")
                (name, value), *_ = ((n, v) for n, v in event["delta"].items() if n != "type")
                name = "json" if name == "partial_json" else name
                blocks[-1][name] += value
            case "content_block_stop":
                if blocks[-1]["type"] == "tool_use":
                    blocks[-1]["input"] = json.loads(blocks[-1]["json"])
                is_open = False
            case "message_delta":
                message |= event["delta"] | {"usage": event["usage"]}
    if not events or events[-1]["type"] != "message_stop" or is_open:
        raise BrokenAnswerError("a stream without an end")
    return _message(message | {"content": blocks})


# -- OpenAI's responses ----------------------------------------------------------------------------------------------

_DELTAS = tuple(
    f"response.{kind}.delta"
    for kind in ("output_text", "reasoning_text", "reasoning_summary_text", "function_call_arguments")
)


def _response(body: Body) -> Answer:
    """A response: its items in order."""
    items = [(item["type"], *_of_item(item)) for item in body["output"]]
    if body["status"] not in ("completed", "incomplete") or any(
        i["status"] != "completed" for i in body["output"][:-1]
    ):
        raise BrokenAnswerError(f"the status is {body['status']}: {body['output']}")
    usage = body["usage"]
    return Answer(200, [{"items": items, "status": body["status"]}], usage["output_tokens"], usage["input_tokens"])


def _of_item(item: Body) -> tuple[Any, ...]:
    """What an item holds, and the log-probabilities of its tokens."""
    if item["type"] == "function_call":
        return item["name"], item["arguments"]
    parts = item.get("content") or item.get("summary") or []
    return "".join(part["text"] for part in parts), [each for part in parts for each in part.get("logprobs", ())]


def _response_events(events: list[Body]) -> Answer:
    """Puts the texts together from their deltas, as a client does, and compares them with the last event."""
    texts: list[str] = []
    for number, event in enumerate(events):
        if event["sequence_number"] != number:
            raise BrokenAnswerError(f"event {event['sequence_number']} comes as number {number}")
        if event["type"] == "error":
            return Answer(200, error=event["message"])
        if event["type"] == "response.output_item.added":
            texts.append("")
        elif event["type"] in _DELTAS:
            texts[event["output_index"]] += event["delta"]
    if not events or events[-1]["type"] not in ("response.completed", "response.incomplete"):
        raise BrokenAnswerError("a stream without an end")
    answer = _response(events[-1]["response"])
    if texts != [item[2] if item[0] == "function_call" else item[1] for item in answer.choices[0]["items"]]:
        raise BrokenAnswerError(f"the deltas are {texts}, the items {answer.choices}")
    return answer


# -- the table -------------------------------------------------------------------------------------------------------


def _asked(text: str) -> list[Body]:
    return [{"role": "user", "content": text}]


APIS = {
    api.path: api
    for api in (
        Api(
            COMPLETION,
            lambda text, tokens: {"prompt": text, "max_tokens": tokens},
            lambda body: _openai_whole(body, _text),
            lambda events: _openai_streamed(events, _text),
            _openai_error,
        ),
        Api(
            CHAT,
            lambda text, tokens: {"messages": _asked(text), "max_tokens": tokens},
            lambda body: _openai_whole(body, _turn),
            lambda events: _openai_streamed(events, _turn),
            _openai_error,
        ),
        Api(
            MESSAGES,
            lambda text, tokens: {"messages": _asked(text), "max_tokens": tokens},
            _message,
            _message_events,
            _anthropic_error,
        ),
        Api(
            RESPONSES,
            lambda text, tokens: {"input": text, "max_output_tokens": tokens},
            _response,
            _response_events,
            _openai_error,
        ),
    )
}
