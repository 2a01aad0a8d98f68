"""Server-sent events, in whatever pieces they come."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outrider.bench.endpoint.event_stream import DONE, EventStream

line_ends = st.sampled_from(["\n", "\r\n", "\r"])
lines = st.text(st.characters(blacklist_characters="\r\n", blacklist_categories=["Cs"]))


def pushed(*parts):
    stream = EventStream()
    return [event for part in parts for event in stream.push(part)]


@given(st.lists(st.tuples(st.lists(lines, min_size=1, max_size=3), st.booleans()), max_size=4), line_ends, st.data())
def test_events_do_not_depend_on_how_the_bytes_are_cut(events, end, data):
    written = "".join(
        (f": a comment{end}event: message{end}" if comment else "")
        + "".join(f"data: {line}{end}" for line in of_event)
        + end
        for of_event, comment in events
    ).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(written)), max_size=8)))
    edges = [0, *cuts, len(written)]
    parts = [written[start:stop] for start, stop in pairwise(edges)]
    assert pushed(*parts) == ["\n".join(of_event) for of_event, _ in events]
    assert pushed(*(bytes([byte]) for byte in written)) == ["\n".join(of_event) for of_event, _ in events]


@given(st.binary())
def test_any_bytes_can_be_read(garbage):
    assert pushed(garbage) == pushed(*(bytes([byte]) for byte in garbage))


@pytest.mark.parametrize("sign", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1e"])
def test_only_line_feeds_and_carriage_returns_end_a_line(sign):
    assert pushed(f"data: a{sign}b\n\n".encode()) == [f"a{sign}b"]


def test_fields():
    assert pushed(b"data:no space\n\ndata:  two\n\ndata\n\nretry: 5\nid: 1\n\n: ping\n\n") == ["no space", " two", ""]
    assert pushed(b"data: [DONE]\n\n") == [DONE]
    assert pushed(b"data: not ended\n") == []
