"""Holds an answer to a JSON schema. What the schema demands is drafted without any model.

usage: python examples/json_schema.py [MODEL]
"""

import json
import sys

from outrider import LLM, Grammar, SamplingParams

SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 20},
        "climate": {"enum": ["tropical", "arid", "temperate", "continental", "polar"]},
        "population": {"type": "integer", "minimum": 0, "maximum": 50000000},
    },
    "required": ["city", "climate", "population"],
    "additionalProperties": False,
}

with LLM(sys.argv[1] if len(sys.argv) > 1 else "demo") as llm:
    params = SamplingParams(max_tokens=120, grammar=Grammar.json_schema(SCHEMA))
    answer = llm.generate("Lisbon as JSON: ", params)[0]
    print(json.loads(answer.text))
    print(f"{answer.stats.tokens_per_pass:.2f} tokens per pass")
