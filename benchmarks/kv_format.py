"""What each rounding of 8-bit attention costs on its own, emulated in ``transformers``.

usage: python -m benchmarks.kv_format MODEL.gguf [--tokens N] [--scored N]

Keys, queries, values and softmax weights are rounded to 127 steps of a scale, shared by so many dimensions or
positions; the rest stays float32. Printed: the divergence of the next token's distribution from that of a float16 cache
(its mean over the last positions), by which log perplexity grows on average, and which few tokens determine well.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

TEXT = Path(__file__).parent.parent / "docs" / "benchmark-text" / "ordinary.txt"
TILE, HEAD_ROWS = 128, 128
WHOLE = 1 << 20


@dataclass(frozen=True)
class Rounding:
    """How many dimensions (of keys, queries, values) or positions (weights) share a scale; 0: float16."""

    keys: int = 0
    queries: int = 0
    values: int = 0
    weights: int = 0
    layers: str = "all"  # or "full", "sliding"


CASES = (
    *(Rounding(keys=n) for n in (WHOLE, 64, 32, 16)),
    *(Rounding(queries=n) for n in (WHOLE, 64, 32)),
    Rounding(values=WHOLE),
    *(Rounding(weights=n) for n in (128, 64, 32, 16)),
    *(Rounding(32, 32, WHOLE, 32, layers) for layers in ("all", "sliding", "full")),
)


def codes(x: torch.Tensor, group: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes within +-127 of groups of the last dimension, as floats, and the scale of each number."""
    group = min(group, x.shape[-1])
    parts = x.unflatten(-1, (-1, group))
    scales = parts.abs().amax(-1, keepdim=True).clamp_min(1e-30) / 127
    return (parts / scales).round().flatten(-2), scales.expand_as(parts).flatten(-2)


def rounded(x: torch.Tensor, group: int) -> torch.Tensor:
    """What a cache holds of x."""
    if group == 0:
        return x.half().float()
    found, scales = codes(x, group)
    return found * scales


class Attention:
    """The attention function of ``transformers``, with the rounding of `case`."""

    case = Rounding()

    def __call__(
        self,
        _: Any,
        query: Any,
        key: Any,
        value: Any,
        __: Any,
        scaling: float,
        sliding_window: int | None = None,
        **___: Any,
    ) -> tuple[torch.Tensor, None]:
        kind = "sliding" if sliding_window else "full"
        case = self.case if self.case.layers in ("all", kind) else Rounding()
        heads, rows = query.shape[1], query.shape[2]
        group = heads // key.shape[1]
        out = torch.empty_like(query[0])
        for head in range(heads):
            q, k, v = query[0, head] * scaling, key[0, head // group], value[0, head // group]
            q = rounded(q, case.queries) if case.queries else q
            scores = q @ rounded(k, case.keys).T
            seen = torch.ones_like(scores, dtype=torch.bool).tril()
            if sliding_window:
                seen = seen.triu(1 - sliding_window)
            weights = torch.softmax(scores.masked_fill(~seen, -torch.inf), -1)
            if case.weights:
                scales = codes(v, WHOLE)[1][:, :1].T if case.values else torch.ones(1, rows)
                padded = torch.nn.functional.pad(weights * scales, (0, -rows % TILE))
                weights = rounded(padded, case.weights)[:, :rows] / scales
            out[head] = weights @ rounded(v, case.values)
        return out.transpose(0, 1)[None], None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--scored", type=int, default=384)
    arguments = parser.parse_args()
    model, attention = arguments.model.absolute(), Attention()
    ALL_ATTENTION_FUNCTIONS.register("rounded", attention)
    tokenizer = AutoTokenizer.from_pretrained(model.parent, gguf_file=model.name)
    network: Any = AutoModelForCausalLM.from_pretrained(
        model.parent, gguf_file=model.name, dtype=torch.float32, attn_implementation="rounded"
    )
    text = tokenizer(TEXT.read_text("utf-8"), add_special_tokens=False).input_ids[: arguments.tokens]
    ids = torch.tensor([[tokenizer.bos_token_id, *text]])

    def distributions() -> list[torch.Tensor]:
        hidden = network.model(ids).last_hidden_state[0, -arguments.scored :]
        return [torch.log_softmax(network.lm_head(rows), -1) for rows in hidden.split(HEAD_ROWS)]

    with torch.inference_mode():
        truth = distributions()
        print(f"{'keys':>8} {'queries':>8} {'values':>8} {'weights':>8} {'layers':>8} {'divergence':>11}")
        for case in CASES:
            attention.case = case
            parts = zip(truth, distributions(), strict=True)
            divergence = sum(float((p.exp() * (p - q)).sum()) for p, q in parts) / arguments.scored
            shared = (case.keys, case.queries, case.values, case.weights)
            names = ("-" if n == 0 else "whole" if n == WHOLE else str(n) for n in shared)
            print(" ".join(f"{name:>8}" for name in names), f"{case.layers:>8} {100 * divergence:>9.4f} %", flush=True)


if __name__ == "__main__":
    main()
