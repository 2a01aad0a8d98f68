"""LangChain's ChatOpenAI: invoke, stream, bound tools, structured output; over chat completions and responses."""

import sys

import openai
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

base = f"{sys.argv[1]}/v1"
model = openai.OpenAI(base_url=base, api_key="none").models.list().data[0].id


@tool
def get_weather(city: str) -> str:
    """Reports the weather."""
    return f"rain in {city}"


class Person(BaseModel):
    """A person."""

    name: str
    age: int


def each(llm: ChatOpenAI) -> None:
    whole = llm.invoke("Hello")
    assert whole.text == "Hello from the stand-in.", whole
    assert "".join(chunk.text for chunk in llm.stream("Hello")) == whole.text
    question = HumanMessage("What is the weather in Oslo?")
    asked = llm.bind_tools([get_weather]).invoke([question])
    (call,) = asked.tool_calls
    result = get_weather.invoke(call)
    assert isinstance(result, ToolMessage)
    told = llm.bind_tools([get_weather]).invoke([question, asked, result])
    assert told.text == "The tool says: rain in Oslo", told
    for method in ("json_schema", "function_calling"):
        found = llm.with_structured_output(Person, method=method).invoke("Extract: Ada is 36")
        assert found == Person(name="Ada", age=36), (method, found)


for responses in (False, True):
    each(ChatOpenAI(model=model, base_url=base, api_key="none", max_retries=0, use_responses_api=responses))
    print("responses" if responses else "chat")
