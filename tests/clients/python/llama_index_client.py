"""LlamaIndex's OpenAILike: complete, chat, streams, a function call."""

import sys

import openai
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike

base = f"{sys.argv[1]}/v1"
model = openai.OpenAI(base_url=base, api_key="none").models.list().data[0].id
shape = {"model": model, "api_base": base, "api_key": "none", "max_retries": 0, "context_window": 8192}
chat = OpenAILike(**shape, is_chat_model=True, is_function_calling_model=True)
plain = OpenAILike(**shape, is_chat_model=False, max_tokens=8)
hello = [ChatMessage(role="user", content="Hello")]


def get_weather(city: str) -> str:
    """Reports the weather."""
    return f"rain in {city}"


assert chat.chat(hello).message.content == "Hello from the stand-in."
assert "".join(chunk.delta or "" for chunk in chat.stream_chat(hello)) == "Hello from the stand-in."
print("chat")
assert plain.complete("Once").text
assert "".join(chunk.delta or "" for chunk in plain.stream_complete("Once"))
print("complete")
answer = chat.predict_and_call([FunctionTool.from_defaults(get_weather)], "What is the weather in Oslo?")
assert str(answer) == "rain in Oslo", answer
print("predict_and_call")
