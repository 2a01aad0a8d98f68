"""The official OpenAI client: chat, streams, tools, structured output, completions, responses."""

import json
import sys

import openai
import pydantic

client = openai.OpenAI(base_url=f"{sys.argv[1]}/v1", api_key="none", max_retries=0)
model = client.models.list().data[0].id
weather = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


class Person(pydantic.BaseModel):
    name: str
    age: int


def chat() -> None:
    hello = [{"role": "user", "content": "Hello"}]
    whole = client.chat.completions.create(model=model, messages=hello).choices[0].message.content
    stream = client.chat.completions.create(model=model, messages=hello, stream=True)
    pieces = [chunk.choices[0].delta.content or "" for chunk in stream]
    assert "".join(pieces) == whole == "Hello from the stand-in.", (pieces, whole)
    with client.chat.completions.stream(model=model, messages=hello) as events:
        assert events.get_final_completion().choices[0].message.content == whole


def tools() -> None:
    messages: list = [{"role": "user", "content": "What is the weather in Oslo?"}]
    message = client.chat.completions.create(model=model, messages=messages, tools=[weather]).choices[0].message
    (call,) = message.tool_calls
    assert json.loads(call.function.arguments) == {"city": "Oslo"}
    messages += [message, {"role": "tool", "tool_call_id": call.id, "content": "rain"}]
    answer = client.chat.completions.create(model=model, messages=messages, tools=[weather])
    assert answer.choices[0].message.content == "The tool says: rain"


def parsed() -> None:
    ask = [{"role": "user", "content": "Extract: Ada is 36"}]
    completion = client.chat.completions.parse(model=model, messages=ask, response_format=Person)
    assert completion.choices[0].message.parsed == Person(name="Ada", age=36)


def completions() -> None:
    answer = client.completions.create(model=model, prompt=["Once", "Twice"], max_tokens=3, logprobs=1, echo=True)
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert answer.choices[0].text.startswith("Once")


def responses() -> None:
    first = client.responses.create(model=model, input="Hello", instructions="Be kind.")
    assert first.output_text == "Hello from the stand-in."
    with client.responses.stream(model=model, input="Hello", previous_response_id=first.id) as events:
        kinds = {event.type for event in events}
        assert events.get_final_response().output_text == first.output_text
    assert {"response.created", "response.output_text.delta", "response.completed"} <= kinds
    tool = {"type": "function", **weather["function"], "strict": False}
    asked = client.responses.create(model=model, input="What is the weather in Oslo?", tools=[tool])
    (call,) = [item for item in asked.output if item.type == "function_call"]
    assert json.loads(call.arguments) == {"city": "Oslo"}
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
    told = client.responses.create(model=model, input=[result], previous_response_id=asked.id, tools=[tool])
    assert told.output_text == "The tool says: rain"
    person = client.responses.parse(model=model, input="Extract: Ada is 36", text_format=Person)
    assert person.output_parsed == Person(name="Ada", age=36)


for check in (chat, tools, parsed, completions, responses):
    check()
    print(check.__name__)
