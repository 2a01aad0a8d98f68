"""What does drafting bring on your own prompts? Each is answered with and without drafts, in turns, by the clock.

usage: python examples/my_prompts.py PROMPTS.txt [MODEL]      # a prompt a line
`outrider bench decode MODEL --suite FILE` does it with intervals and a report.
"""

import math
import sys
import time
from pathlib import Path

from outrider import LLM, SamplingParams

prompts = [line for line in Path(sys.argv[1]).read_text().splitlines() if line.strip()]
with LLM(sys.argv[2] if len(sys.argv) > 2 else "demo", prefix_cache_bytes=0) as llm:

    def seconds(prompt: str, draft: str) -> float:
        began = time.perf_counter()
        llm.generate(prompt, SamplingParams(max_tokens=64, draft=draft))
        return time.perf_counter() - began

    ratios = []
    for number, prompt in enumerate(prompts):
        order = ("off", "auto") if number % 2 else ("auto", "off")
        took = {draft: seconds(prompt, draft) for draft in order}
        ratios.append(took["off"] / took["auto"])
        print(f"{ratios[-1]:5.2f} times as fast: {prompt[:60]}")
    print(f"{math.exp(sum(map(math.log, ratios)) / len(ratios)):5.2f} times as fast, geometric mean")
