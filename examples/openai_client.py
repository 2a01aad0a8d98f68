"""The openai client against `outrider serve MODEL`: a stream, and what drafting brought.

usage: python examples/openai_client.py [URL]
"""

import sys

from openai import OpenAI

client = OpenAI(base_url=f"{sys.argv[1] if len(sys.argv) > 1 else 'http://127.0.0.1:8000'}/v1", api_key="none")
model = client.models.list().data[0].id

stream = client.completions.create(model=model, prompt="Once upon a time", max_tokens=32, stream=True)
for chunk in stream:
    print(chunk.choices[0].text, end="", flush=True)
print()

whole = client.completions.create(model=model, prompt="Once upon a time", max_tokens=32, temperature=0)
print(whole.usage.completion_tokens, "tokens:", whole.model_extra["outrider"][0])
