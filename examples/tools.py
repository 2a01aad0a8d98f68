"""An agent's loop: the model calls functions until it answers. Needs a chat model, such as Gemma 4's -it.

usage: python examples/tools.py MODEL
"""

import json
import sys
from datetime import UTC, datetime

from outrider import LLM, SamplingParams


def clock(zone: str) -> str:
    """The only function that the model may call."""
    return f"{datetime.now(UTC):%H:%M} in {zone}"


TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "clock",
            "description": "The time of day in a time zone.",
            "parameters": {"type": "object", "properties": {"zone": {"type": "string"}}, "required": ["zone"]},
        },
    }
]
MOST_TURNS = 4

with LLM(sys.argv[1]) as llm:
    messages = [{"role": "user", "content": "What time is it in Lisbon?"}]
    for _ in range(MOST_TURNS):
        answer = llm.chat(messages, SamplingParams(max_tokens=200), tools=TOOLS)[0]
        messages.append({"role": "assistant", "content": answer.text, "tool_calls": answer.tool_calls})
        if not answer.tool_calls:
            break
        for call in answer.tool_calls:
            result = clock(**json.loads(call["function"]["arguments"]))
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": result})
    print(messages[-1]["content"])
