"""Turns of conversations as clients ask for them, from the request to the answer, with and without drafts."""

from __future__ import annotations

import json
import logging

import httpx
import pytest
from chat.formats import GEMMA3, save_tokenizer
from json_tokenizer import SPECIAL
from server.templates import GEMMA
from server.test_tools import ASK, TIME, WEATHER, joined
from serving import serving

from outrider.chat.template import ChatTemplate
from outrider.prompts import Prompts
from outrider.sampling.params import SamplingParams
from outrider.tokenizer import Tokenizer

CLOSE = 259 + SPECIAL.index("<channel|>")
END = 1
OPENED = GEMMA + "{{ '<|channel>thought\\n' }}"
CLOSED = OPENED + "<channel|>"
THOUGHT, SAID = [3 + ord(letter) for letter in "abcd"], [3 + ord(letter) for letter in "efgh"]


@pytest.fixture
def template(json_llm, monkeypatch):
    """Gives the model another chat template."""

    def use(source):
        monkeypatch.setattr(json_llm.parts.prompts, "template", ChatTemplate(source, bos="<bos>"))

    return use


@pytest.fixture
def tokenizer_with_bos(json_llm, tmp_path):
    """The prompts of a model with a tokenizer of its own."""
    tokenizer = Tokenizer.from_file(save_tokenizer(tmp_path / "tokenizer.json"))
    return Prompts(
        tokenizer,
        None,
        json_llm.parts.grammars,
        name="x",
        vocabulary=512,
        context=64,
        most_context=64,
        defaults=SamplingParams(),
    )


@pytest.fixture
def scripted(json_llm, monkeypatch):
    """Makes the model say these tokens, each of which comes once, greedily."""

    def say(*tokens):
        step = dict(zip(tokens, [*tokens[1:], END], strict=True))
        run = json_llm.parts.target.run

        def scripted(sequences, *, logits=False):
            found = run(sequences, logits=logits)
            for rows, choices in zip(sequences, found.choices, strict=True):
                for at, row in enumerate(rows.outputs):
                    choices[at] = step.get(rows.tokens[row], tokens[0])
            return found

        monkeypatch.setattr(json_llm.parts.target, "run", scripted)

    return say


def asked(client, *, stream, **body):
    """(content, reasoning, finish reason, calls, usage)."""
    extra = {name: body.pop(name) for name in list(body) if name in EXTRA}
    options = {"stream_options": {"include_usage": True}} if stream else {}
    found = client.chat.completions.create(**{**ASK, **body}, stream=stream, extra_body=extra, **options)
    if not stream:
        (choice,) = found.choices
        message = choice.message
        thought = getattr(message, "reasoning_content", None) or ""
        calls = [(call.function.name, call.function.arguments) for call in message.tool_calls or ()]
        return message.content or "", thought, choice.finish_reason, calls, found.usage
    *chunks, last = found
    message, reason = joined(chunks)
    calls = [(call["name"], call["arguments"]) for call in message["tool_calls"].values()]
    return message["content"], message["reasoning_content"], reason, calls, last.usage


EXTRA = (
    "drafting",
    "chat_template_kwargs",
    "thinking_budget",
    "continue_final_message",
    "add_generation_prompt",
    "regex",
)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("drafting", ["off", "auto", 5])
def test_a_thought_that_the_template_opens_is_no_content(json_client, template, scripted, stream, drafting):
    template(OPENED)
    scripted(*THOUGHT, CLOSE, *SAID)
    body = {"temperature": 0, "drafting": drafting, "reasoning_effort": "high"}
    content, thought, reason, _, usage = asked(json_client, stream=stream, **body)
    assert (content, thought, reason) == ("efgh", "abcd", "stop")
    assert usage.completion_tokens_details.reasoning_tokens == 4
    template(CLOSED)
    scripted(*SAID)
    content, thought, _, _, usage = asked(json_client, stream=stream, **body)
    assert (content, thought) == ("efgh", "")
    assert usage.completion_tokens_details.reasoning_tokens == 0


@pytest.mark.parametrize("stream", [False, True])
def test_stop_texts_do_not_look_into_thoughts(json_client, template, scripted, stream):
    template(OPENED)
    scripted(*THOUGHT, CLOSE, *SAID)
    content, thought, *_ = asked(json_client, stream=stream, temperature=0, stop=["bc", "g"])
    assert (content, thought) == ("ef", "abcd")


@pytest.mark.parametrize("temperature", [0, 1])
@pytest.mark.parametrize("source", [OPENED, GEMMA])
@pytest.mark.parametrize(
    "form",
    [
        {"tools": [WEATHER, TIME], "tool_choice": "required", "parallel_tool_calls": False},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"enum": ["ab", 12]}}}},
        {"regex": "[0-9]{3}"},
    ],
)
def test_a_demanded_form_follows_the_thought_when_its_budget_is_spent(json_client, template, source, form, temperature):
    template(source)
    think = 259 + SPECIAL.index("<|channel>")
    body = {**form, "temperature": temperature, "thinking_budget": 6, "logit_bias": {str(think): 100, str(CLOSE): -100}}
    found = []
    for drafting in ("off", "auto", 5):
        for stream in (False, True):
            content, thought, reason, calls, usage = asked(json_client, stream=stream, drafting=drafting, **body)
            assert usage.completion_tokens_details.reasoning_tokens == 6
            found.append((content, thought, reason, calls))
    assert all(one == found[0] for one in found)
    content, thought, reason, calls = found[0]
    assert thought
    if "tools" in form:
        assert reason == "tool_calls"
        assert content == ""
        assert calls[0][0] in ("get_weather", "get-time")
    else:
        assert len(content) == 3 if "regex" in form else json.loads(content) in ("ab", 12)


def test_a_form_together_with_tools(json_client, template):
    template(GEMMA)
    call, begun = 259 + SPECIAL.index("<|tool_call>"), 3 + ord("1")
    body = {
        "tools": [TIME],
        "parallel_tool_calls": False,
        "response_format": {"type": "json_schema", "json_schema": {"schema": {"const": 12}}},
    }
    answers = [asked(json_client, stream=False, logit_bias={str(t): 100}, **body)[:4] for t in (call, begun)]
    assert answers == [("", "", "tool_calls", [("get-time", "{}")]), ("12", "", "stop", [])]


ODD = ['{"city": "Os', "[1]", '"Oslo"', "nonsense", None, {"city": "Oslo"}, ""]


@pytest.mark.parametrize("source", [GEMMA, GEMMA3])
@pytest.mark.parametrize("arguments", ODD)
def test_a_history_with_odd_calls_goes_on(json_url, template, source, caplog, arguments):
    template(source)
    calls = [{"id": None, "type": "function", "function": {"name": "f" * 70, "arguments": arguments}}]
    messages = [
        {"role": "developer", "content": "Be kind."},
        {"role": "user", "content": [{"type": "text", "text": "a"}], "name": None},
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "tool_call_id": "1", "content": {"degrees": 4}},
        {"role": "user", "content": "b"},
        {"role": "user", "content": None},
    ]
    body = {"messages": messages, "max_tokens": 2}
    with caplog.at_level(logging.WARNING, "outrider.chat"):
        found = httpx.post(f"{json_url}/v1/chat/completions", json=body)
    assert found.status_code == 200, found.text
    assert [text[:11] for text in caplog.messages] == ["messages[2]"] * (arguments in ODD[:4])


@pytest.mark.parametrize("stream", [False, True])
def test_a_template_without_tools_gets_calls_in_json(json_client, template, stream):
    template(GEMMA3)
    schema = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
    schema["additionalProperties"] = False
    ask = {"tools": [{"type": "function", "function": {"name": "go", "parameters": schema}}], "tool_choice": "required"}
    found = [asked(json_client, stream=stream, drafting=drafting, **ask)[:4] for drafting in ("off", "auto", 5)]
    assert found[0] == found[1] == found[2]
    content, _, reason, ((name, arguments),) = found[0]
    assert (content, reason) == ("", "tool_calls")
    assert name == "go"
    assert json.loads(arguments) in ({"a": True}, {"a": False})


def test_the_answer_goes_on_with_the_assistants_message(json_llm, json_client, template, monkeypatch):
    template(GEMMA3)
    rendered = []
    encode = json_llm.tokenizer.encode_marked
    monkeypatch.setattr(json_llm.tokenizer, "encode_marked", lambda ps: rendered.append("".join(ps)) or encode(ps))
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "It is "}]
    asked(json_client, stream=False, messages=messages, max_tokens=2, continue_final_message=True)
    asked(json_client, stream=False, messages=messages, max_tokens=2, add_generation_prompt=False)
    begun = "<bos><start_of_turn>user\na<end_of_turn>\n<start_of_turn>model\nIt is"
    assert rendered == [begun + " ", begun + "<end_of_turn>\n"]


def test_thinking_is_off_when_the_text_says_so(json_llm, json_client, monkeypatch):
    rendered = []
    encode = json_llm.tokenizer.encode_marked
    monkeypatch.setattr(json_llm.tokenizer, "encode_marked", lambda ps: rendered.append("".join(ps)) or encode(ps))
    for value in ("true", "false"):
        asked(json_client, stream=False, max_tokens=2, chat_template_kwargs={"enable_thinking": value})
    asked(json_client, stream=False, max_tokens=2, reasoning_effort="low")
    assert ["<|think|>" in text for text in rendered] == [True, False, True]


def test_an_image_in_the_history_of_a_text_model(json_llm, json_url, caplog):
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    messages = [{"role": "user", "content": [{"type": "text", "text": "a"}, image]}, {"role": "user", "content": "b"}]
    body = {"messages": messages, "max_tokens": 2}
    refused = httpx.post(f"{json_url}/v1/chat/completions", json=body)
    assert refused.status_code == 400
    assert "messages[0] has a content part of the type image_url" in refused.json()["error"]["message"]
    assert refused.json()["error"]["param"] == "messages"
    assert "--ignore-media" in refused.json()["error"]["message"]
    with serving(json_llm, ignore_media=True) as (base, _), caplog.at_level(logging.WARNING, "outrider.chat"):
        assert httpx.post(f"{base}/v1/chat/completions", json=body).status_code == 200
    assert caplog.messages == ["messages[0]: a part of the type image_url was replaced by [image]"]


def test_control_tokens_in_a_prompt_are_read_as_such_when_asked_for(json_url):
    def prompt_tokens(**options):
        body = {"prompt": "a<|channel>b", "max_tokens": 1, **options}
        return httpx.post(f"{json_url}/v1/completions", json=body).json()["usage"]["prompt_tokens"]

    assert prompt_tokens() == 1 + len("a<|channel>b")
    assert prompt_tokens(parse_special=True) == 1 + 3
    assert prompt_tokens(parse_special=True, add_special_tokens=False) == 3


def test_bos_is_not_doubled(tokenizer_with_bos):
    once = tokenizer_with_bos.encode("<bos>a", parse_special=True)
    assert once == tokenizer_with_bos.encode("a", parse_special=True)
    assert tokenizer_with_bos.encode("<bos>a", parse_special=True, add_bos=False) == once
    assert tokenizer_with_bos.encode("<bos>a")[:2] != once[:1] * 2
