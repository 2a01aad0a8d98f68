"""Characters whose bytes are spread over tokens: a stream shows them whole, whatever drafts cut them where."""

from __future__ import annotations

import json
import random

import httpx
import pytest
from lossless.stand_in import StandInDrafter

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
