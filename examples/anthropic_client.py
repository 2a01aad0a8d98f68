"""The anthropic client against `outrider serve MODEL`. Needs a chat model.

usage: python examples/anthropic_client.py [URL]
"""

import sys

from anthropic import Anthropic

client = Anthropic(base_url=sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000", api_key="none")
model = client.models.list().data[0].id
with client.messages.stream(
    model=model, max_tokens=64, messages=[{"role": "user", "content": "Name three rivers."}]
) as stream:
    for text in stream.text_stream:
        print(text, end="", flush=True)
print()
