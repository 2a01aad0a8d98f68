"""Tokens and logits that every machine must reproduce: computes them, and prints or stores them.

`PYTHONPATH=tests python tests/lossless/golden.py --write` stores them in golden.json, to be committed with the change
that moves them on purpose. `test_golden.py` runs this program in an environment of its own: with numpy's dispatch to
the processor's instruction sets on and off, and with each of the core's instruction sets.

Pages on disk hold what an earlier version computed: a change of golden.json changes `cache.identity.ARITHMETIC`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tiny_checkpoints import VARIANTS, VOCAB, make_assistant, make_model, save_folder
from word_tokenizer import save_tokenizer

from outrider import LLM, SamplingParams
from outrider.backends import cpu
from outrider.engine.scoring import logits_of

STORED = Path(__file__).with_name("golden.json")
PROMPTS = ["The capital of France is", "def fibonacci(n):\n"]
REQUESTS = {
    "greedy": {"temperature": 0.0},
    "sampled": {"temperature": 1.0, "seed": 7},
    "filtered": {"temperature": 0.8, "top_k": 40, "top_p": 0.9, "min_p": 0.02, "seed": 11},
    "typical": {"temperature": 1.2, "typical_p": 0.8, "repetition_penalty": 1.2, "frequency_penalty": 0.3, "seed": 13},
}
_TINY = [name for name in VARIANTS if name.startswith("gemma4") or name == "gemma3-scaled"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"store them in {STORED.name}")
    parser.add_argument("--instruction-set", default=cpu.instruction_set(), help="of the core")
    parser.add_argument("--flush-denormals", action="store_true", help="as a library built with -ffast-math would")
    options = parser.parse_args()
    torch.set_flush_denormal(options.flush_denormals)
    cpu.choose_instruction_set(options.instruction_set)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    found = dict(golden())
    if options.write:
        lines = (f"{json.dumps(case)}: {json.dumps(answers)}" for case, answers in found.items())
        STORED.write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")
    else:
        json.dump(found, sys.stdout)


def golden() -> Iterator[tuple[str, dict[str, Any]]]:
    """(case, {"logits": SHA-256, request: token ids}) of every model."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder  # quantized weights go with it
        for variant in _TINY:
            yield from _tiny(variant, Path(folder) / variant)
    for kv_format in ("float16", "int8"):
        llm = LLM("demo", kv_cache_dtype=kv_format)
        prompts = [llm.parts.prompts.encode(prompt) for prompt in PROMPTS]
        yield f"demo {kv_format}", _answers(llm, prompts, max_tokens=16)


def _tiny(variant: str, folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """A tiny checkpoint with its drafter: as floating point, and quantized on load."""
    target = make_model(variant)
    path = save_folder(target, folder / "target")
    save_tokenizer(path, VOCAB)  # a checkpoint must have a tokenizer; the prompts here are ids
    drafter = None
    if variant.startswith("gemma4"):
        text = target.config.get_text_config()
        drafter = save_folder(make_assistant(text, ordered=True, seed=1), folder / "drafter")
    rng = np.random.default_rng(5)
    prompts = [[int(token) for token in rng.integers(3, VOCAB, count)] for count in (5, 40)]
    for quantize in (None, "q4_0", "q8_0"):
        llm = LLM(path, drafter=drafter, threads=1, context=256, quantize=quantize)
        yield f"{variant} {quantize or 'float32'}", _answers(llm, prompts, max_tokens=16)


def _answers(llm: LLM, prompts: list[list[int]], **params: Any) -> dict[str, Any]:
    """The same with and without drafts, or it is no golden answer."""
    answers: dict[str, Any] = {}
    for name, fields in REQUESTS.items():
        fields = {**params, **fields, "ignore_end": True}
        plain, drafted = (
            [list(out.token_ids) for out in llm.generate(prompts, SamplingParams(**fields, draft=draft))]
            for draft in ("off", "auto")
        )
        assert drafted == plain, f"{name}: drafting changes tokens"
        answers[name] = plain
    logits = b"".join(logits_of(llm.parts, prompt).tobytes() for prompt in prompts)
    answers["logits"] = hashlib.sha256(logits).hexdigest()
    return answers


if __name__ == "__main__":
    main()
