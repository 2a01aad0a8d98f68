"""Writes llama_cpp_ids.json: what llama-cpp-python 0.3.36 makes of the texts with the demo's vocabulary.

usage: python tests/tokenizer/record_llama_cpp_ids.py MODEL.gguf    (with a Python that has llama-cpp-python)
"""

import json
import sys
from pathlib import Path

from llama_cpp import Llama
from texts import TEXTS

model = Llama(sys.argv[1], vocab_only=True, verbose=False)
ids = {text: model.tokenize(text.encode(), add_bos=False, special=False) for text in TEXTS}
lines = ",\n".join(f"  {json.dumps(text)}: {json.dumps(tokens)}" for text, tokens in ids.items())
(Path(__file__).parent / "llama_cpp_ids.json").write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
