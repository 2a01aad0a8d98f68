"""Items and events of an answer, however its text is cut."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outrider.chat.markers import Markers
from outrider.engine.outputs import RequestOutput, RequestStats
from outrider.server.errors import ApiError
from outrider.server.responses.events import ResponseWriter
from outrider.server.responses.request import ResponsesRequest
from outrider.server.responses.tools import Tools

THOUGHT = "<|channel>thought\nHm > so<channel|>"
CALL = "<|tool_call>call:f{a:1}<tool_call|>"
BROKEN = "<|tool_call>call:g{<tool_call|>"
ANSWERS = [
    "",
    " ",
    "Yes.",
    f"{THOUGHT}\n\nYes <b>indeed</b>.",
    f"{THOUGHT}{CALL}",
    f"Now: {CALL} {CALL}\n",
    f"Now: {CALL} and {CALL}{THOUGHT} then",
    f" {BROKEN} {CALL}{BROKEN}",
    "<|channel>thought\nnever ends",
    f"{CALL}<|tool_call>call:f{{a",
]


class NoTokens:
    """A tokenizer without control tokens."""

    hidden = frozenset()

    def special_tokens(self, _texts):
        return frozenset()


def written(pieces: list[str], reason: Any = "stop") -> tuple[ResponseWriter, list[dict[str, Any]]]:
    response = ResponsesRequest(input="x").response("tiny", {})
    reader = Markers(channels=True, tools=True).reader()
    writer = ResponseWriter(response, reader, Tools(), NoTokens(), summary=False, opaque=False)
    events = [*writer.begin()]
    for piece in pieces:
        events += writer.push(piece, None)
    events += writer.end(RequestOutput((1,), (2,), "".join(pieces), reason, RequestStats()))
    return writer, [*events, writer.last()]


def plain(response: dict[str, Any]) -> list[dict[str, Any]]:
    """Its items without what differs by nature."""
    return [
        {name: value for name, value in item.items() if name not in ("id", "call_id")} for item in response["output"]
    ]


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("reason", ["stop", "length"])
@settings(max_examples=40, deadline=None)
@given(cuts=st.sets(st.integers(1, 90)))
def test_the_items_do_not_depend_on_the_pieces(answer, reason, cuts):
    whole, _ = written([answer], reason)
    places = sorted({0, len(answer), *(cut for cut in cuts if cut < len(answer))})
    cut, events = written([answer[at:end] for at, end in itertools.pairwise(places)], reason)
    assert plain(cut.response.model_dump()) == plain(whole.response.model_dump())
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert events[-1]["response"] == cut.response.model_dump()


def test_the_items_are_what_the_model_wrote_in_its_order():
    def items(answer):
        return [
            (item["type"], item.get("arguments") or item["content"][0]["text"])
            for item in plain(written([answer])[0].response.model_dump())
        ]

    call = ("function_call", '{"a": 1}')
    assert items("") == [("message", "")]
    assert items(" ") == [("message", " ")]
    assert items(ANSWERS[3]) == [("reasoning", "Hm > so"), ("message", "\n\nYes <b>indeed</b>.")]
    assert items(ANSWERS[5]) == [("message", "Now: "), call, call]
    assert items(ANSWERS[6]) == [
        ("message", "Now: "),
        call,
        ("message", " and "),
        call,
        ("reasoning", "Hm > so"),
        ("message", " then"),
    ]
    assert items(ANSWERS[7]) == [("message", " call:g{ "), call, ("message", "call:g{")]
    assert items(ANSWERS[9]) == [call, ("message", "call:f{a")]


def test_what_is_open_at_a_failure_is_incomplete():
    writer, _ = written([])
    writer.response.output.clear()
    events = [*writer.push("Half a sent", None), *writer.fail(ApiError(504, "too long")), writer.last()]
    assert [event["type"] for event in events[-3:]] == ["response.output_item.done", "error", "response.failed"]
    assert events[-1]["response"]["output"][0]["status"] == "incomplete"
    assert events[-1]["response"]["error"] == {"code": "server_error", "message": "too long"}
