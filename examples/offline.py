"""Answers a list of prompts in one batch, with and without drafts, and shows that the tokens are the same.

usage: python examples/offline.py [MODEL]
"""

import sys
from dataclasses import replace

from outrider import LLM, SamplingParams

PROMPTS = ["Once upon a time", "The capital of France is", "1, 1, 2, 3, 5, 8,"]

with LLM(sys.argv[1] if len(sys.argv) > 1 else "demo") as llm:
    params = SamplingParams(max_tokens=32, temperature=0.8, seed=7)
    drafted = llm.generate(PROMPTS, params)
    plain = llm.generate(PROMPTS, replace(params, draft="off"))
    for prompt, one, other in zip(PROMPTS, drafted, plain, strict=True):
        assert one.token_ids == other.token_ids
        print(f"{prompt}|{one.text}\n  {one.stats.tokens_per_pass:.2f} tokens per pass")
