"""Perplexity of a model over ordinary prose: the float32 reference and outrider on the same tokens.

    python -m benchmarks.perplexity MODEL.gguf

The text is cut into windows of 512 rows, each a fresh context that starts with BOS; every token of the text is scored
once. The reference is ``transformers`` in float32 on the same file, which takes minutes.

Beside the perplexities stands how far single tokens are from the reference, because errors of both signs can leave a
mean untouched; and the standard error of the difference, because a difference below it says nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from outrider import LLM
from outrider.backends.cpu import KV_FORMATS, KvFormat
from outrider.engine.scoring import score

TEXT = Path(__file__).parent.parent / "docs" / "benchmark-text" / "ordinary.txt"
# Logits of one window are 512 x 262144 float32 (537 MB); the softmax over them is taken this many rows at a time.
SOFTMAX_ROWS = 64

LogProbs = npt.NDArray[np.float64]
console = Console(stderr=True)


class BenchmarkError(Exception):
    """Something the person who runs the benchmark has to change; the message says what."""


@dataclass(frozen=True)
class Scored:
    """log p of every token given those before it in its window."""

    log_probs: LogProbs
    """(tokens,) natural logarithms"""
    seconds: float


@dataclass(frozen=True)
class Reference:
    """The reference's log-probabilities, and their tokens."""

    token_ids: list[int]
    """The scored tokens, without BOS."""
    bos_token_id: int
    log_probs: LogProbs
    """(tokens,) log p of each token given BOS and those before it in its window"""
    seconds: float


@dataclass(frozen=True)
class Result:
    """One row of the table."""

    backend: str
    tokens: int
    perplexity: float
    difference_percent: float
    """Of the perplexity, against the reference."""
    standard_error_percent: float
    """Of that difference, from the tokens' paired differences."""
    mean_absolute_difference: float
    """Of a token's log-probability (nats), against the reference."""
    seconds: float
    """Scoring alone, without loading the model."""


def cut_into_windows(token_ids: Sequence[int], bos_token_id: int, window: int) -> list[list[int]]:
    """Windows of at most ``window`` rows: BOS, then the next ``window - 1`` tokens."""
    step = window - 1
    return [[bos_token_id, *token_ids[start : start + step]] for start in range(0, len(token_ids), step)]


def transformers_reference(model: Path, text: str, *, tokens: int, window: int, threads: int) -> Reference:
    """Tokenize ``text`` and score its first ``tokens`` tokens with ``transformers`` in float32."""
    try:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError as problem:
        raise BenchmarkError(f"the reference needs torch, transformers and accelerate ({problem})") from problem

    torch.set_num_threads(threads)
    tokenizer = AutoTokenizer.from_pretrained(model.parent, gguf_file=model.name)
    token_ids: list[int] = tokenizer(text, add_special_tokens=False).input_ids[:tokens]
    bos_token_id = int(tokenizer.bos_token_id)
    # Any: torch's own methods are partly untyped, and differently so from version to version.
    network: Any = AutoModelForCausalLM.from_pretrained(model.parent, gguf_file=model.name, dtype=torch.float32)
    network.eval()

    def window_log_probs(ids: list[int]) -> LogProbs:
        logits = network(torch.tensor([ids[:-1]])).logits[0]  # (rows, vocab_size)
        targets: Any = torch.tensor(ids[1:])
        scored = [
            torch.log_softmax(rows.double(), dim=-1).gather(1, wanted[:, None])[:, 0]
            for rows, wanted in zip(logits.split(SOFTMAX_ROWS), targets.split(SOFTMAX_ROWS), strict=True)
        ]
        return np.asarray(torch.cat(scored))

    begin = perf_counter()
    windows = cut_into_windows(token_ids, bos_token_id, window)
    with torch.inference_mode():
        log_probs = [window_log_probs(ids) for ids in track(windows, "reference (transformers)", console=console)]
    return Reference(token_ids, bos_token_id, np.concatenate(log_probs), perf_counter() - begin)


def outrider_logprobs(model: Path, windows: Sequence[list[int]], *, threads: int, kv_cache_dtype: KvFormat) -> Scored:
    """outrider's log-probabilities of every token of every window but the BOS that begins it.

    windows: token ids with BOS first. The result has one number for each token but the BOS.
    """
    llm = LLM(str(model), drafter=None, threads=threads, kv_cache_dtype=kv_cache_dtype)
    begin = perf_counter()
    # score gives one number a token; whether it has one for BOS, which nothing comes before, does not matter here.
    log_probs = [score(llm, ids)[-(len(ids) - 1) :] for ids in track(windows, "outrider", console=console)]
    return Scored(np.concatenate(log_probs).astype(np.float64), perf_counter() - begin)


def compare(backend: str, scored: Scored, reference: LogProbs) -> Result:
    """A backend's perplexity beside the reference's.

    reference  (tokens,) float64
    """
    log_probs = scored.log_probs
    if log_probs.shape != reference.shape:
        raise BenchmarkError(f"{backend} scored {log_probs.size} tokens, the reference {reference.size}")
    unusable = np.flatnonzero(~np.isfinite(log_probs))
    if unusable.size:
        raise BenchmarkError(
            f"{backend} gave no finite log-probability for {unusable.size} tokens, first {unusable[0]}"
        )
    differences = reference - log_probs
    ratio = math.exp(differences.mean())  # perplexity / reference's perplexity
    error = ratio * differences.std(ddof=1) / math.sqrt(differences.size)
    return Result(
        backend=backend,
        tokens=int(log_probs.size),
        perplexity=math.exp(-log_probs.mean()),
        difference_percent=100 * (ratio - 1),
        standard_error_percent=100 * float(error),
        mean_absolute_difference=float(np.abs(differences).mean()),
        seconds=scored.seconds,
    )


def show(results: Sequence[Result]) -> None:
    table = Table(title=f"Perplexity over {results[0].tokens} tokens of ordinary text")
    table.add_column("backend", no_wrap=True)
    for heading in ("perplexity", "difference", "± s.e.", "|Δ log p|", "time"):
        table.add_column(heading, justify="right")
    for row in results:
        table.add_row(
            row.backend,
            f"{row.perplexity:.4f}",
            f"{row.difference_percent:+.3f} %",
            f"{row.standard_error_percent:.3f} %",
            f"{row.mean_absolute_difference:.4f}",
            f"{row.seconds:.0f} s",
        )
    Console().print(table)


def main(
    model: Annotated[Path, typer.Argument(help="A GGUF file.", exists=True, dir_okay=False)],
    text: Annotated[Path, typer.Option(help="The text to score.", exists=True, dir_okay=False)] = TEXT,
    tokens: Annotated[int, typer.Option(min=2, help="How many of its tokens.")] = 20_000,
    window: Annotated[int, typer.Option(min=2, help="Rows of a window, BOS included.")] = 512,
    threads: Annotated[int, typer.Option(min=1)] = 2,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the table.")] = False,
) -> None:
    """Perplexity of MODEL by the float32 reference and by outrider."""
    model = model.absolute()
    prose = text.read_text("utf-8")
    try:
        truth = transformers_reference(model, prose, tokens=tokens, window=window, threads=threads)
        results = [compare("float32 reference", Scored(truth.log_probs, truth.seconds), truth.log_probs)]
        windows = cut_into_windows(truth.token_ids, truth.bos_token_id, window)
        for kv_format in KV_FORMATS[1:]:
            scored = outrider_logprobs(model, windows, threads=threads, kv_cache_dtype=kv_format)
            results.append(compare(f"outrider, {kv_format} cache", scored, truth.log_probs))
    except BenchmarkError as problem:
        console.print(f"error: {problem}", style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None
    if as_json:
        print(json.dumps({"model": model.name, "window": window, "results": [asdict(row) for row in results]}))
    else:
        show(results)


if __name__ == "__main__":
    typer.run(main)
