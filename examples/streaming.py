"""Prints an answer as it comes: several tokens at once where drafts were accepted.

usage: python examples/streaming.py [MODEL]
"""

import sys

from outrider import LLM, SamplingParams

with LLM(sys.argv[1] if len(sys.argv) > 1 else "demo") as llm:
    for piece in llm.stream("The three most important inventions were", SamplingParams(max_tokens=48)):
        print(piece.text, end="", flush=True)
        if piece.finish_reason is not None:
            print(f"\n[{piece.finish_reason}]")
