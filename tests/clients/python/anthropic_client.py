"""The official Anthropic client: messages, streams, tools, thinking, counting tokens."""

import sys

import anthropic
import pytest

client = anthropic.Anthropic(base_url=sys.argv[1], api_key="none", max_retries=0)
model = client.models.list().data[0].id
weather = {
    "name": "get_weather",
    "description": "Reports the weather",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
hello: list = [{"role": "user", "content": "Hello"}]
question: list = [{"role": "user", "content": "What is the weather in Oslo?"}]


def messages() -> None:
    whole = client.messages.create(model=model, max_tokens=64, messages=hello, system="Be kind.")
    assert (whole.content[0].text, whole.stop_reason) == ("Hello from the stand-in.", "end_turn"), whole
    with client.messages.stream(model=model, max_tokens=64, messages=hello, system="Be kind.") as stream:
        assert "".join(stream.text_stream) == whole.content[0].text
        assert stream.get_final_message().usage.output_tokens == whole.usage.output_tokens


def tools() -> None:
    asked = client.messages.create(model=model, max_tokens=64, messages=question, tools=[weather])
    (use,) = [block for block in asked.content if block.type == "tool_use"]
    assert (use.input, asked.stop_reason) == ({"city": "Oslo"}, "tool_use")
    result = {"type": "tool_result", "tool_use_id": use.id, "content": [{"type": "text", "text": "rain"}]}
    turns = [*question, {"role": "assistant", "content": asked.content}, {"role": "user", "content": [result]}]
    told = client.messages.create(model=model, max_tokens=64, messages=turns, tools=[weather])
    assert told.content[0].text == "The tool says: rain"
    with client.messages.stream(model=model, max_tokens=64, messages=question, tools=[weather]) as stream:
        assert stream.get_final_message().content[-1].input == {"city": "Oslo"}


def thinking() -> None:
    budget: dict = {"type": "enabled", "budget_tokens": 1024}
    answer = client.messages.create(model=model, max_tokens=2048, messages=hello, thinking=budget)
    thought, text = answer.content
    assert (thought.thinking, text.text) == ("The user wrote to me.", "Hello from the stand-in.")
    with client.messages.stream(model=model, max_tokens=2048, messages=hello, thinking=budget) as stream:
        assert stream.get_final_message().content[0].thinking == thought.thinking


def count_tokens() -> None:
    counted = client.messages.count_tokens(model=model, messages=hello).input_tokens
    usage = client.messages.create(model=model, max_tokens=4, messages=hello).usage
    assert counted == usage.input_tokens + usage.cache_read_input_tokens


def errors() -> None:
    long = [{"role": "user", "content": "word " * 90_000}]
    with pytest.raises(anthropic.BadRequestError) as caught:
        client.messages.create(model=model, max_tokens=4, messages=long)
    assert caught.value.body["error"]["type"] == "invalid_request_error"


for check in (messages, tools, thinking, count_tokens, errors):
    check()
    print(check.__name__)
