"""OpenAI's Responses API, through its official client, whose types check every event and response."""

from __future__ import annotations

import json

import httpx
import jsonschema
import openai
import pydantic
import pytest
from openai.types.responses import Response, ResponseItemList
from server.responses.streams import events, post, rebuilt, said

from outrider.tokenizer.utf8 import text_of

JSON = {"content-type": "application/json"}
ASK = {"model": "tiny", "input": "abc", "max_output_tokens": 24, "temperature": 0}
THINKS = {"grammar": 'start: <|channel> "thought\\n" /[a-c]{6}/ <channel|> /[0-9]{3}/'}
"""A grammar makes the tiny model think before it answers."""
CALLS = "ab <|tool_call>call:look{a:1}<tool_call|> <|tool_call>call:look{}<tool_call|>"
LOOK = {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}}
WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "Says it",
    "parameters": {
        "type": "object",
        "properties": {"unit": {"type": "string", "enum": ["ab", "abc"]}, "exact": {"type": "boolean"}},
        "required": ["unit", "exact"],
    },
    "strict": True,
}


def streamed(client, **ask):
    with client.responses.stream(**ask) as stream:
        return [event.type for event in stream], stream.get_final_response()


@pytest.mark.parametrize("drafting", ["off", "auto", 5])
@pytest.mark.parametrize(
    ("more", "text"),
    [({}, None), (THINKS, None), ({"reasoning": {"summary": "auto"}, **THINKS}, None), ({"tools": [LOOK]}, CALLS)],
)
def test_a_stream_is_the_whole_response_whatever_is_drafted(json_url, says, drafting, more, text):
    if text:
        says(text)
    ask = ASK | {"max_output_tokens": 60} | more
    plain = post(json_url, ask | {"drafting": "off"})
    whole = post(json_url, ask | {"drafting": drafting})
    found = events(json_url, ask | {"drafting": drafting})
    assert said(plain) == said(whole) == said(found[-1].response)
    assert [(item["type"], item["text"]) for item in rebuilt(found)] == said(whole)
    assert whole.usage.output_tokens == found[-1].response.usage.output_tokens == plain.usage.output_tokens
    assert whole.status == found[-1].response.status == plain.status
    assert [event.type for event in found[:2]] == ["response.created", "response.in_progress"]


def test_a_response_that_is_cut_is_incomplete(client, url):
    whole = client.responses.create(**ASK | {"max_output_tokens": 4}, extra_body={"ignore_eos": True})
    assert (whole.status, whole.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert whole.output[-1].status == "incomplete"
    assert whole.usage.output_tokens == 4
    last = events(url, ASK | {"max_output_tokens": 4, "ignore_eos": True})[-1]
    assert (last.type, last.response.output_text) == ("response.incomplete", whole.output_text)


def test_thoughts_are_items_of_their_own(json_url):
    ask = ASK | THINKS
    found = events(json_url, ask)
    thought, message = found[-1].response.output
    assert (thought.type, message.type) == ("reasoning", "message")
    assert len(thought.content[0].text) == 6
    assert not thought.summary
    assert thought.encrypted_content is None
    kinds = [event.type for event in found]
    assert kinds.count("response.content_part.added") == kinds.count("response.content_part.done") == 2
    details = found[-1].response.usage.output_tokens_details
    assert 8 < details.reasoning_tokens < found[-1].response.usage.output_tokens
    asked = ask | {"reasoning": {"effort": "none", "summary": "auto"}, "include": ["reasoning.encrypted_content"]}
    found = events(json_url, asked)
    summary = found[-1].response.output[0]
    assert (summary.summary[0].text, summary.content) == (thought.content[0].text, None)
    assert summary.encrypted_content.endswith(thought.content[0].text)
    kinds = {event.type for event in found}
    assert {f"response.reasoning_summary_part.{when}" for when in ("added", "done")} <= kinds
    assert {f"response.reasoning_summary_text.{when}" for when in ("delta", "done")} <= kinds


@pytest.mark.parametrize(
    ("reasoning", "thinks"),
    [(None, False), ({"effort": "none"}, False), ({}, False)]
    + [(asked, True) for asked in ({"effort": "low"}, {"effort": "high", "summary": None}, {"summary": "auto"})],
)
def test_reasoning_is_asked_of_the_template(client_prompts, reasoning, thinks):
    assert client_prompts(reasoning=reasoning)[0].endswith("<|think|>") is thinks


@pytest.fixture
def client_prompts(json_llm, json_client, monkeypatch):
    """Sends a request, and returns the prompt texts that were encoded."""

    def send(**ask):
        texts = []
        encode = json_llm.tokenizer.encode_marked
        with monkeypatch.context() as patch:
            patch.setattr(
                *(json_llm.tokenizer, "encode_marked"), lambda parts: texts.append("".join(parts)) or encode(parts)
            )
            json_client.responses.create(**ASK | {"max_output_tokens": 2} | ask)
        return texts

    return send


@pytest.mark.parametrize(
    "choice",
    [
        "required",
        {"type": "function", "name": "get_weather"},
        {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "get_weather"}]},
    ],
)
def test_a_required_function_is_called(json_client, choice):
    ask = ASK | {"max_output_tokens": 200, "tools": [WEATHER], "tool_choice": choice, "parallel_tool_calls": False}
    whole = json_client.responses.create(**ask)
    (call,) = whole.output
    assert (whole.status, call.type, call.name) == ("completed", "function_call", "get_weather")
    jsonschema.validate(json.loads(call.arguments), WEATHER["parameters"])
    kinds, final = streamed(json_client, **ask)
    assert final.output[0].arguments == call.arguments
    assert kinds.count("response.output_item.added") == kinds.count("response.output_item.done") == 1
    assert kinds.count("response.function_call_arguments.done") == 1


def test_text_and_calls_come_in_the_order_they_were_written(json_url, says):
    says(CALLS)
    found = post(json_url, ASK | {"max_output_tokens": 100, "tools": [LOOK]})
    assert said(found) == [("message", "ab "), ("function_call", '{"a": 1}'), ("function_call", "{}")]


def test_a_custom_tool_gets_a_text(json_url, says, client_prompts):
    tool = {"type": "custom", "name": "apply", "description": "Applies it", "format": {"type": "text"}}
    ask = ASK | {"max_output_tokens": 100, "tools": [tool, {"type": "web_search"}]}
    says('<|tool_call>call:apply{input:<|"|>*** x<|"|>}<tool_call|>')
    found = events(json_url, ask)
    (call,) = found[-1].response.output
    assert (call.type, call.name, call.input) == ("custom_tool_call", "apply", "*** x")
    assert {f"response.custom_tool_call_input.{when}" for when in ("delta", "done")} <= {event.type for event in found}
    history = [call.model_dump(), {"type": "custom_tool_call_output", "call_id": call.call_id, "output": "done"}]
    (text,) = client_prompts(input=history, tools=[tool])
    assert "<|tool_call>call:apply{[('input', '*** x')]}<tool_call|>" in text
    assert f"tool{call.call_id}: done" in text


def test_the_tools_of_a_namespace_have_its_name(json_url, says, client_prompts):
    tool = {"type": "namespace", "name": "agents", "description": "All of them", "tools": [LOOK]}
    says("<|tool_call>call:agents.look{a:1}<tool_call|>")
    (call,) = post(json_url, ASK | {"max_output_tokens": 60, "tools": [tool]}).output
    assert (call.namespace, call.name) == ("agents", "look")
    assert "call:agents.look{" in client_prompts(input=[call.model_dump()], tools=[tool])[0]


def test_a_format_is_enforced_and_parsed(json_client, says):
    says('{"a":true}')

    class Answer(pydantic.BaseModel):
        a: bool

    found = json_client.responses.parse(**ASK, text_format=Answer)
    assert isinstance(found.output_parsed, Answer)
    with json_client.responses.stream(**ASK, text_format=Answer) as stream:
        assert isinstance(stream.get_final_response().output_parsed, Answer)
    found = json_client.responses.create(**ASK | {"max_output_tokens": 60}, text={"format": {"type": "json_object"}})
    assert found.output_text.startswith("{")


def test_log_probabilities_are_those_of_the_text(json_url):
    ask = ASK | THINKS | {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
    whole = post(json_url, ask)
    (part,) = whole.output[1].content
    assert "".join(each.token for each in part.logprobs) == part.text
    assert all(len(each.top_logprobs) == 2 for each in part.logprobs)
    for drafting in ("off", 5):
        found = events(json_url, ask | {"drafting": drafting})
        assert found[-1].response.output[1].content[0].logprobs == part.logprobs
        deltas = [each for event in found if event.type == "response.output_text.delta" for each in event.logprobs]
        assert [each.token for each in deltas] == [each.token for each in part.logprobs]


@pytest.mark.parametrize("drafting", ["off", "auto", 5])
def test_the_text_is_that_of_the_chat_route(json_client, drafting):
    settings = {"model": "tiny", "temperature": 1, "extra_body": {"seed": 7, "drafting": drafting}}
    response = json_client.responses.create(**settings, input="abc", instructions="Be kind.", max_output_tokens=60)
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "abc"}]
    chat = json_client.chat.completions.create(**settings, messages=messages, max_tokens=60)
    assert response.output_text == chat.choices[0].message.content
    assert response.usage.output_tokens == chat.usage.completion_tokens


@pytest.mark.parametrize("seed", range(6))
def test_log_probabilities_end_with_the_text_though_it_has_bytes_of_no_character(json_url, seed):
    """Such a byte is one of a token and three in the text. The token that ends the answer is none of the text."""
    ends = list(range(260, 500, 2))
    ask = ASK | {"temperature": 1.5, "seed": seed, "stop_token_ids": ends, "min_tokens": 12, "max_output_tokens": 60}
    ask |= {"include": ["message.output_text.logprobs"]}
    whole = post(json_url, ask | {"drafting": "off"})
    (part,) = whole.output[0].content
    assert "\ufffd" in part.text
    assert text_of(b"".join(bytes(each.bytes) for each in part.logprobs)) == part.text
    for drafting in ("off", 5):
        found = events(json_url, ask | {"drafting": drafting})
        assert found[-1].response.output[0].content[0].logprobs == part.logprobs


def test_input_tokens_are_counted(json_client):
    counted = json_client.responses.input_tokens.count(model="tiny", input="abc", instructions="Be kind.")
    used = json_client.responses.create(**ASK, instructions="Be kind.").usage
    assert counted.input_tokens == used.input_tokens
    assert used.total_tokens == used.input_tokens + used.output_tokens


# -- what a response is made from --------------------------------------------------------------------------------------


def test_a_conversation_goes_on(json_client, client_prompts):
    first = json_client.responses.create(**ASK, extra_body=THINKS, instructions="Be kind.")
    thought, message = first.output
    (text,) = client_prompts(input="And?", previous_response_id=first.id, instructions="Be short.")
    told = f"<|channel>thought\n{thought.content[0].text}<channel|>assistant: {message.content[0].text}\n"
    assert text == f"system: Be short.\nuser: abc\n{told}user: And?\n"
    references = [{"type": "item_reference", "id": item.id} for item in first.output]
    (text,) = client_prompts(input=[*references, {"role": "user", "content": "And?"}])
    assert text == f"{told}user: And?\n"


def test_a_chain_of_calls_and_results(json_client, says, client_prompts):
    says(CALLS)
    asked = json_client.responses.create(**ASK | {"max_output_tokens": 100}, tools=[LOOK])
    calls = [item for item in asked.output if item.type == "function_call"]
    results = [{"type": "function_call_output", "call_id": call.call_id, "output": "rain"} for call in calls]
    second = json_client.responses.create(**ASK | {"input": results}, previous_response_id=asked.id, tools=[LOOK])
    (text,) = client_prompts(input="So?", previous_response_id=second.id, tools=[LOOK])
    one, two = (call.call_id for call in calls)
    made = "<|tool_call>call:look{[('a', 1)]}<tool_call|><|tool_call>call:look{[]}<tool_call|>assistant: ab \n"
    assert made + f"tool{one}: rain\ntool{two}: rain\n" in text


def test_stored_responses_are_read_listed_and_deleted(json_client):
    first = json_client.responses.create(**ASK | {"input": [{"role": "user", "content": "abc"}]}, metadata={"a": "b"})
    assert json_client.responses.retrieve(first.id) == first
    second = json_client.responses.create(**ASK | {"input": "And?"}, previous_response_id=first.id)
    assert second.previous_response_id == first.id
    listed = json_client.responses.input_items.list(second.id, order="asc").data
    assert [item.content[0].text for item in listed] == ["abc", first.output_text, "And?"]
    page = json_client.responses.input_items.list(second.id, order="asc", limit=2)
    assert [item.id for item in page] == [item.id for item in listed], "the client turns the pages"
    raw = httpx.get(f"{json_client.base_url}responses/{second.id}/input_items").json()
    assert [item["id"] for item in raw["data"]] == [item.id for item in reversed(listed)]
    ResponseItemList.model_validate(raw)
    assert json_client.responses.cancel(first.id) == first
    json_client.responses.delete(first.id)
    for gone in (json_client.responses.retrieve, json_client.responses.delete, json_client.responses.cancel):
        with pytest.raises(openai.NotFoundError, match=f"Response with id '{first.id}' not found"):
            gone(first.id)
    with pytest.raises(openai.NotFoundError) as caught:
        json_client.responses.create(**ASK, previous_response_id=second.id)
    assert (caught.value.code, caught.value.param) == ("previous_response_not_found", "previous_response_id")


def test_nothing_is_stored_unless_asked(json_client, says):
    kept = json_client.responses.create(**ASK, store=False)
    with pytest.raises(openai.NotFoundError):
        json_client.responses.retrieve(kept.id)
    with pytest.raises(openai.NotFoundError):
        json_client.responses.create(**ASK, previous_response_id=kept.id)
    says("abc")
    _, final = streamed(json_client, **ASK)
    assert json_client.responses.retrieve(final.id).output_text == final.output_text, "a stream is stored too"


def test_the_oldest_turns_are_left_out_of_what_is_too_long(json_url, client_prompts):
    turns = [{"role": "developer", "content": "Be kind."}]
    for number in range(20):
        turns += [{"role": "user", "content": f"{number} " + "x" * 50}, {"role": "assistant", "content": "yes"}]
    turns.append({"role": "user", "content": "And?"})
    texts = client_prompts(input=turns, truncation="auto")
    kept = texts[-1].split("\n")
    assert kept[0] == "system: Be kind."
    assert kept[1].startswith("user: 1")
    assert kept[-2:] == ["user: And?", ""]
    one_more = texts[-1].replace("user: ", f"user: {int(kept[1].split()[1]) - 1} {'x' * 50}\nassistant: yes\nuser: ", 1)
    assert len(texts[-1]) < 512 <= len(one_more), "no turn is left out that would fit"
    ask = ASK | {"max_output_tokens": 2}
    found = httpx.post(f"{json_url}/v1/responses", json=ask | {"input": turns})
    assert found.status_code == 400
    too_long = {"input": [*turns, {"role": "user", "content": "x" * 600}], "truncation": "auto"}
    assert httpx.post(f"{json_url}/v1/responses", json=ask | too_long).status_code == 400
    one = {"input": "x" * 600, "truncation": "auto"}
    assert httpx.post(f"{json_url}/v1/responses", json=ask | one).status_code == 400


# -- what is taken and what is refused ---------------------------------------------------------------------------------


def test_null_is_absent_and_unknown_fields_are_ignored(json_url):
    described = httpx.get(f"{json_url}/openapi.json").json()["components"]["schemas"]["ResponsesRequest"]["properties"]
    nulls = dict.fromkeys(set(described) - {"input"})
    same = said(post(json_url, ASK))
    assert said(post(json_url, nulls | ASK)) == same
    more = {"client_metadata": {"a": 1}, "stream_options": None, "service_tier": "auto", "nobody": "knows"}
    asked = {"text": {"format": None, "verbosity": "low"}, "truncation": "auto", "include": []}
    assert said(post(json_url, ASK | more | asked)) == same


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"input": None}, "input is missing"),
        ({"input": [{"type": "compaction"}]}, "input: item 0: the type 'compaction' is not supported"),
        ({"input": [{"role": "critic", "content": "x"}]}, "the role 'critic'"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "content part of the type input_image"),
        ({"conversation": "conv_1"}, "conversation is not supported: conversations are not stored here"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt is not supported"),
        ({"background": True, "store": False}, "background needs store"),
        ({"tools": [WEATHER, WEATHER]}, "two functions called get_weather"),
        ({"tools": [{"type": "function", "name": "a b"}]}, "tools.0.name"),
        ({"tools": [{"type": "namespace", "name": "s", "tools": ["x"]}]}, "tools.0.tools: give a list"),
        ({"tools": [{"type": "web_search"}], "tool_choice": "required"}, "there are no tools to call"),
        ({"tools": [{"type": "web_search"}], "tool_choice": {"type": "web_search"}}, "requires 'web_search'"),
        ({"tools": [LOOK], "tool_choice": {"type": "function", "name": "x"}}, "names the function x"),
        ({"tools": [LOOK], "tool_choice": {"type": "allowed_tools", "mode": "required"}}, "allows no tool"),
        ({"tools": [LOOK], "tool_choice": "sometimes"}, "requires 'sometimes'"),
        ({"metadata": {"a": "x" * 513}}, "metadata"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format has no schema"),
        ({"text": {"format": {"type": "json_schema", "schema": {"type": "thing"}}}}, "Invalid type: thing"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"input": "abc " * 2000}, "maximum context length is 512 tokens"),
        ({"n": 2}, "n: "),
    ],
)
def test_what_is_refused_is_named(json_url, fields, says):
    found = httpx.post(f"{json_url}/v1/responses", json=ASK | fields)
    assert found.status_code == 400
    assert says in found.json()["error"]["message"]


def test_only_the_tools_and_the_choice_that_count_are_repeated(json_url):
    form = {"type": "grammar", "syntax": "lark", "definition": 'start: "a"'}
    custom = {"type": "custom", "name": "apply", "format": form}
    space = {"type": "namespace", "name": "s", "tools": [LOOK]}
    junk = {"junk": "x" * 1000}
    tools = [LOOK | junk, {"type": ["odd"]}, custom | {"format": form | junk}, space | {"tools": [LOOK | junk]}]
    choice = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "look", "junk": 1}]}
    found = httpx.post(f"{json_url}/v1/responses", json=ASK | {"tools": tools, "tool_choice": choice}).json()
    assert found["tools"] == [LOOK, custom, space]
    assert found["tool_choice"] == choice | {"tools": [{"type": "function", "name": "look"}]}
    found = post(json_url, ASK | {"tools": [LOOK], "tool_choice": {"type": "auto"}})
    assert found.tool_choice == "auto"


def test_another_model_is_not_found(json_client):
    with pytest.raises(openai.NotFoundError, match="there is no model gpt"):
        json_client.responses.create(**ASK | {"model": "gpt"})


def test_a_format_that_cannot_be_used_names_its_field(json_client):
    form = {"format": {"type": "json_schema", "name": "x", "schema": {"type": "thing"}}}
    with pytest.raises(openai.BadRequestError) as caught:
        json_client.responses.create(**ASK, text=form)
    assert caught.value.param == "text.format"


def test_half_a_surrogate_pair_comes_back_as_it_was(json_url):
    ask = ASK | {
        "tools": [LOOK | {"description": "\ud83d"}],
        "input": [{"role": "user", "content": "a", "id": "\ud83d"}],
    }
    found = httpx.post(f"{json_url}/v1/responses", content=json.dumps(ask), headers=JSON)
    response = Response.model_validate(found.json())
    assert response.tools[0].description == "\ud83d"
    assert httpx.get(f"{json_url}/v1/responses/{response.id}").json() == found.json()
    assert httpx.get(f"{json_url}/v1/responses/{response.id}/input_items").json()["first_id"] == "\ud83d"
