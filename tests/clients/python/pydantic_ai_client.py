"""pydantic-ai: an agent with a tool and one with a typed answer, over chat completions and responses.

Its Anthropic model does not start with the current release of the anthropic package.
"""

import asyncio
import sys

import openai
from pydantic import BaseModel
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

url = sys.argv[1]
name = openai.OpenAI(base_url=f"{url}/v1", api_key="none").models.list().data[0].id


class Person(BaseModel):
    """A person."""

    name: str
    age: int


def get_weather(city: str) -> str:
    """Reports the weather."""
    return f"rain in {city}"


async def streamed(agent: Agent) -> str:
    async with agent.run_stream("Hello") as result:
        return str(await result.get_output())


openai_provider = OpenAIProvider(base_url=f"{url}/v1", api_key="none")
models = {
    "chat": OpenAIChatModel(name, provider=openai_provider),
    "responses": OpenAIResponsesModel(name, provider=openai_provider),
}
for kind, model in models.items():
    assert Agent(model).run_sync("Hello").output == "Hello from the stand-in."
    assert asyncio.run(streamed(Agent(model))) == "Hello from the stand-in."
    told = Agent(model, tools=[get_weather]).run_sync("What is the weather in Oslo?").output
    assert told == "The tool says: rain in Oslo", told
    found = Agent(model, output_type=Person).run_sync("Extract: Ada is 36").output
    assert found == Person(name="Ada", age=36)
    print(kind)
