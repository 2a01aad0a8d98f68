"""Perplexity over ordinary prose: outrider against ``transformers`` in float32, on the same file and tokens.

usage: python -m benchmarks.perplexity MODEL.gguf [--tokens N] [--window N] [--threads N]

The text is cut into windows of 512 rows, each a fresh context that starts with BOS; every token of the text is scored
once. The reference takes minutes. The last line compares 8-bit keys and values with float16. Also printed: the
deviation of single tokens from the reference, because errors of both signs can cancel in a mean; and the standard error
of the difference, below which a difference means nothing.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich.progress import track
from transformers import AutoModelForCausalLM, AutoTokenizer

from outrider import LLM
from outrider.engine.scoring import score

TEXT = Path(__file__).parent.parent / "docs" / "benchmark-text" / "ordinary.txt"
HEAD_ROWS = 64
"""The logits of 8,192 rows would be 8.6 GB: the head takes this many at a time."""

LogProbs = npt.NDArray[np.float64]


def reference(model: Path, windows: Sequence[list[int]]) -> LogProbs:
    """log p of every token but each window's BOS, (tokens,), by ``transformers`` in float32."""
    network: Any = AutoModelForCausalLM.from_pretrained(model.parent, gguf_file=model.name, dtype=torch.float32)
    network.eval()

    def of_window(ids: list[int]) -> LogProbs:
        hidden, targets = network.model(torch.tensor([ids[:-1]])).last_hidden_state[0], torch.tensor(ids[1:])
        parts = zip(hidden.split(HEAD_ROWS), targets.split(HEAD_ROWS), strict=True)
        scored = [
            torch.log_softmax(network.lm_head(rows).double(), -1).gather(1, wanted[:, None])[:, 0]
            for rows, wanted in parts
        ]
        return np.asarray(torch.cat(scored))

    with torch.inference_mode():
        return np.concatenate([of_window(ids) for ids in track(windows, "transformers")])


def show(name: str, log_probs: LogProbs, truth: LogProbs) -> None:
    """One line: a backend's perplexity against the reference's."""
    if log_probs.shape != truth.shape or not np.isfinite(log_probs).all():
        raise SystemExit(f"{name} has no finite log-probability for each of {truth.size} tokens")
    differences = truth - log_probs
    ratio = math.exp(differences.mean())  # perplexity / the reference's
    error = ratio * differences.std(ddof=1) / math.sqrt(differences.size)
    print(
        f"{name:24} {math.exp(-log_probs.mean()):.4f}  {100 * (ratio - 1):+.3f} % (standard error {100 * error:.3f})  "
        f"mean |difference of log p| {np.abs(differences).mean():.4f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--tokens", type=int, default=20_000)
    parser.add_argument("--window", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    model, step = arguments.model.absolute(), arguments.window - 1
    torch.set_num_threads(arguments.threads)
    tokenizer = AutoTokenizer.from_pretrained(model.parent, gguf_file=model.name)
    ids = tokenizer(TEXT.read_text("utf-8"), add_special_tokens=False).input_ids[: arguments.tokens]
    windows = [[tokenizer.bos_token_id, *ids[start : start + step]] for start in range(0, len(ids), step)]
    truth = reference(model, windows)
    show("transformers, float32", truth, truth)
    by_format: dict[str, LogProbs] = {}
    for kv_format in ("float16", "int8"):
        llm = LLM(model, drafter=None, threads=arguments.threads, kv_cache_dtype=kv_format)
        scored = [score(llm.parts, of)[1 - len(of) :] for of in track(windows, f"outrider, {kv_format}")]
        by_format[kv_format] = np.concatenate(scored).astype(np.float64)
        show(f"outrider, {kv_format} cache", by_format[kv_format], truth)
    show("int8 against float16", by_format["int8"], by_format["float16"])


if __name__ == "__main__":
    main()
