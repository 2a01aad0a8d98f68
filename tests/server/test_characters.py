"""Characters whose bytes are spread over tokens: a stream shows them whole, whatever drafts cut them where."""

from __future__ import annotations

import json
import random

import httpx
import pytest
from lossless.stand_in import StandInDrafter
from server.apis import APIS

from outrider import Grammar, SamplingParams

FAMILY = "👩\u200d👩\u200d👧"
FORM = f"(🙂|é|{FAMILY}|日){{6}}"
PROMPT = "emoji"


@pytest.mark.parametrize("drafting", ["off", 1, 2, 3, 7, "auto"])
@pytest.mark.parametrize("chat", [False, True])
def test_an_emoji_split_over_tokens_and_drafts_is_streamed_whole(json_llm, json_url, monkeypatch, chat, drafting):
    messages = [{"role": "user", "content": PROMPT}]
    ids = json_llm.parts.prompts.conversation(messages) if chat else json_llm.parts.prompts.encode(PROMPT)
    params = SamplingParams(max_tokens=120, temperature=1.0, seed=5, grammar=Grammar.regex(FORM), draft="off")
    (plain,) = json_llm.generate([ids], params)
    assert len(plain.token_ids) > len(plain.text) > 5, "several tokens a character"
    stand_in = StandInDrafter(random.Random(1), json_llm.parts.target.vocabulary, 0.9)
    stand_in.know(ids, plain.token_ids)
    monkeypatch.setattr(json_llm.parts.engine.planner, "drafters", [stand_in])
    body = {"messages": messages} if chat else {"prompt": PROMPT}
    body |= {"max_tokens": 120, "temperature": 1.0, "seed": 5, "regex": FORM, "stream": True, "drafting": drafting}
    texts, accepted = [], 0
    with httpx.stream("POST", f"{json_url}/v1/{'chat/' if chat else ''}completions", json=body, timeout=30) as stream:
        for line in stream.iter_lines():
            if line.startswith("data: {"):
                event = json.loads(line[6:])
                choice = event["choices"][0]
                texts.append(choice["delta"].get("content") or "" if chat else choice["text"])
                accepted += sum(event["outrider"]["drafted"])
    assert "".join(texts) == plain.text
    assert not any("\ufffd" in text for text in texts)
    assert (accepted > 0) == (drafting != "off")


LINE_ENDS = "a\x85b\u2028c\u2029d"
"""What Python's `splitlines`, and clients that use it, take for the end of a line."""


@pytest.mark.parametrize("api", APIS.values(), ids=APIS)
def test_no_character_ends_a_line_within_an_event(json_url, api):
    body = api.ask("x", 60) | {"temperature": 0, "stream": True}
    if api.path == "/v1/messages":
        body["output_config"] = {"format": {"type": "json_schema", "schema": {"const": LINE_ENDS}}}
    else:
        body["response_format"] = {"type": "json_schema", "json_schema": {"schema": {"const": LINE_ENDS}}}
    found = httpx.post(f"{json_url}{api.path}", json=body, timeout=30).text
    assert len(found.splitlines()) == len(found.split("\n")) - 1
    whole = httpx.post(f"{json_url}{api.path}", json=body | {"stream": False}, timeout=30).json()
    answer = api.read(found.splitlines())
    assert answer.same(api.whole(whole))
    assert all(f"\\u{ord(end):04x}" in found for end in "\x85\u2028\u2029")


@pytest.mark.parametrize("stream", [False, True])
def test_half_a_character_in_an_echoed_prompt(url, stream):
    """JSON can have it and UTF-8 cannot: it becomes U+FFFD, as its token."""
    asked = {"prompt": "half \\ud83d whole \\ud83d\\ude42", "max_tokens": 0, "echo": True, "stream": stream}
    content = json.dumps(asked).replace("\\\\u", "\\u")
    headers = {"content-type": "application/json"}
    found = httpx.post(f"{url}/v1/completions", content=content, headers=headers, timeout=30)
    assert found.status_code == 200
    body = json.loads(found.text.removeprefix("data: ").partition("\n")[0]) if stream else found.json()
    assert body["choices"][0]["text"] == "half \ufffd whole 🙂"
