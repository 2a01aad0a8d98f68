"""instructor: a pydantic object in every mode that an OpenAI-compatible server can serve, and from Anthropic's."""

import sys

import anthropic
import instructor
import openai
from pydantic import BaseModel

url = sys.argv[1]
client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
model = client.models.list().data[0].id
ask = [{"role": "user", "content": "Extract: Ada is 36"}]


class Person(BaseModel):
    name: str
    age: int


for mode in (instructor.Mode.TOOLS, instructor.Mode.JSON, instructor.Mode.JSON_SCHEMA):
    made = instructor.from_openai(client, mode=mode)
    found = made.chat.completions.create(model=model, response_model=Person, messages=ask, max_retries=0)
    assert found.model_dump() == {"name": "Ada", "age": 36}, (mode, found)
    parts = list(made.chat.completions.create_partial(model=model, response_model=Person, messages=ask))
    assert parts[-1].model_dump() == found.model_dump()
    print(mode.name)
claude = instructor.from_anthropic(anthropic.Anthropic(base_url=url, api_key="none", max_retries=0))
found = claude.chat.completions.create(model=model, response_model=Person, messages=ask, max_tokens=64, max_retries=0)
assert found.model_dump() == {"name": "Ada", "age": 36}
print("anthropic")
