"""LiteLLM, as people put it before a server of their own: the providers `hosted_vllm`, `openai` and `anthropic`."""

import json
import os
import sys

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # prices are not fetched
import litellm
import openai

url = sys.argv[1]
model = openai.OpenAI(base_url=f"{url}/v1", api_key="none").models.list().data[0].id
hello = [{"role": "user", "content": "Hello"}]
weather = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Reports the weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def each(provider: str, base: str) -> None:
    ask = {"model": f"{provider}/{model}", "api_base": base, "api_key": "none", "max_tokens": 64}
    whole = litellm.completion(messages=hello, **ask).choices[0].message.content
    pieces = [chunk.choices[0].delta.content or "" for chunk in litellm.completion(messages=hello, stream=True, **ask)]
    assert "".join(pieces) == whole == "Hello from the stand-in.", (whole, pieces)
    question = [{"role": "user", "content": "What is the weather in Oslo?"}]
    (call,) = litellm.completion(messages=question, tools=[weather], **ask).choices[0].message.tool_calls
    assert json.loads(call.function.arguments) == {"city": "Oslo"}


for provider, base in (("hosted_vllm", f"{url}/v1"), ("openai", f"{url}/v1"), ("anthropic", url)):
    each(provider, base)
    print(provider)
assert (
    "text"
    in litellm.text_completion(
        model=f"text-completion-openai/{model}", prompt="Once", api_base=f"{url}/v1", api_key="none", max_tokens=4
    ).choices[0]
)
print("text_completion")
