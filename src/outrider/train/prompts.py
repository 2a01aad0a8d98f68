"""Prompts for which the target generates training data."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np

from outrider import SamplingParams
from outrider.errors import UsageError
from outrider.tokenizer import Tokenizer
from outrider.train.capture import Job
from outrider.train.dataset import Span, read_spans

_TEMPERATURES = (0.7, 1.0, 1.0)
_SAMPLED_TOKENS, _GREEDY_TOKENS = 160, 112
_PREFIX = (4, 64)


def read_prompts(path: Path) -> list[str]:
    """The prompts of a .jsonl file (objects with "prompt"), or the paragraphs of any other text file.

    Raises:
        UsageError: the file is missing or empty, or a line is not such an object; the message names it.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read prompts from {path} ({error}): name a file of UTF-8 text") from error
    if path.suffix != ".jsonl":
        prompts = [paragraph.strip() for paragraph in text.split("\n\n")]
    else:
        prompts = [_prompt_of(path, number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    prompts = [prompt for prompt in prompts if prompt]
    if not prompts:
        raise UsageError(f'{path} holds no prompts: write {{"prompt": ...}} on each line, or paragraphs of text')
    return prompts


def shipped_openings() -> list[str]:
    """The beginnings of texts in the package, of many kinds; none resembles a benchmark prompt."""
    lines = (files("outrider.train") / "openings.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line)["prompt"] for line in lines]


def endless_jobs(prompts: Sequence[str], tokenizer: Tokenizer, folder: Path, seed: int) -> Iterator[Job]:
    """An endless sequence of jobs: sampled texts, and greedy continuations of the beginnings of sampled texts.

    Sampling brings variety. Greedy decoding is the most common use; continuing sampled beginnings keeps greedy texts
    out of the same few loops. 30 % of the sampled texts have no prompt, so that their kinds are the target's own.

    Args:
        prompts: beginnings of sampled texts.
        folder: of the captured data, for the beginnings of greedy texts.
        seed: of the choices.
    """
    rng, spans = random.Random(seed), list[Span]()
    for number in range(1 << 62):
        opening = "" if rng.random() < 0.3 else rng.choice(prompts)
        params = SamplingParams(
            max_tokens=_SAMPLED_TOKENS, temperature=rng.choice(_TEMPERATURES), seed=rng.getrandbits(63)
        )
        yield Job(tokenizer.encode(opening), params)
        if number % 64 == 0:
            spans = [span for span in read_spans(folder) if not span.greedy]
        if spans:
            span = rng.choice(spans)
            length = min(span.prompt_length + rng.randint(*_PREFIX), span.length - 1)
            tokens = np.fromfile(folder / "tokens.bin", "<i4", length, offset=4 * span.start)
            yield Job(tokens.tolist(), SamplingParams(max_tokens=_GREEDY_TOKENS))


def _prompt_of(path: Path, number: int, line: str) -> str:
    try:
        prompt = json.loads(line)["prompt"]
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f'{path}, line {number}: expected an object such as {{"prompt": "Once"}}') from error
    if not isinstance(prompt, str):
        raise UsageError(f"{path}, line {number}: the prompt must be a string")
    return prompt
