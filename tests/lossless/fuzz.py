"""Looks for a request whose answer depends on drafting.

usage: make fuzz, or PYTHONPATH=tests python tests/lossless/fuzz.py [--requests N] [--seed S] [--demo SHARE]
           [--threads N ...]

Every round takes a model (tiny ones of all variants with random weights and drafters of every kind, or the demo), some
requests with random prompts, embeddings in them, adapters, sampling parameters, stops, grammars, tools, thoughts and
budgets, suppressed tokens, and how to draft: predictions, sources, tree shapes, draft lengths, drafts that are right,
wrong or random, prompt chunks, requests in the batch, shared system prompts, salts, requests that are cancelled within
their prompt, memory that evicts and makes wait, checkpoints. Each request is answered alone without drafting, then all
of them together with it. Not one token, text, log-probability, finish or stop reason may differ; some log-
probabilities are compared with those of scoring, too. A difference is printed with the round's seed, which repeats it:
--seed S --requests 1.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
import transformers
from json_tokenizer import SPECIAL, speak_json
from lossless.stand_in import StandInDrafter
from mobile_checkpoints import save_mobile
from tiny_adapters import adapted, save_adapter
from tiny_checkpoints import VARIANTS, VOCAB, WINDOW, make_assistant, make_model, save_folder, save_gguf
from word_tokenizer import save_tokenizer, speak_words

from outrider import LLM, Grammar, SamplingParams
from outrider.cache import checkpoints
from outrider.cache.memory import sequence_bytes
from outrider.chat import grammar, json_calls
from outrider.checkpoints.config import Suppressed
from outrider.drafters import mtp
from outrider.engine.media import Medium
from outrider.engine.prefill import PREFILL_CHUNK
from outrider.engine.request import Request
from outrider.sampling.thoughts import Thoughts
from outrider.tokenizer import Tokenizer

DRAFTERS = ("none", "dense", "clusters", "broken")
FORMATS = [gguf.GGMLQuantizationType[name] for name in ("F32", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1")]
THREADS = (1, 1, 2, 3)
STOPS = ("ab", "c d", "e", "zz top", "cab", " a")
GRAMMARS = [
    Grammar.regex("[a-e ]{0,30}z"),
    Grammar.regex("(ab|c|d)*e|z{1,50}"),
    Grammar.lark('start: word+\nword: /[abc]+/ | "d" start "e" | "z"'),
]
FUNCTIONS: list[tuple[str, dict[str, Any] | None]] = [
    ("ab", {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"enum": ["x", 1, "ab"]}}}),
    ("z", {"type": "object", "properties": {"list": {"type": "array"}}, "required": ["list"]}),
    ("c", None),
]
FORMS = [None, Grammar.json_object(), Grammar.json_schema({"enum": [12, "ab", "abc"]}), Grammar.regex("[ab]{2,9}c?")]
SCHEMAS = [
    Grammar.json_schema(
        {
            "type": "object",
            "properties": {"name": {"enum": ["ab", "abc", "b"]}, "age": {"type": "integer"}, "a": {"type": "string"}},
            "required": ["name"],
            "additionalProperties": False,
        }
    ),
    Grammar.json_schema({"type": "array", "items": {"anyOf": [{"const": {"ab": [12]}}, {"type": "boolean"}]}}),
]
ADAPTERS: dict[str, dict[str, Any]] = {
    "all": {},
    "wide": {"r": 20, "use_rslora": True},
    "few": {"target_modules": ["q_proj", "down_proj"], "layers_to_transform": [0, 3]},
}
"""Settings of the adapters of each tiny model."""
CONTEXT = 512
"""Of the tiny models."""
EMBEDDED = 32
"""Embeddings that media take their rows from."""


class Models:
    """Makes the models that rounds ask for, and keeps the latest."""

    def __init__(self, folder: Path) -> None:
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        self._folder = folder
        self.get = lru_cache(maxsize=24)(self._make)
        self._target = lru_cache(maxsize=None)(make_model)

    def _make(self, variant: str, drafter: str, threads: int, number: int) -> LLM:
        if variant == "demo":
            return LLM("demo", drafter=None, lookup_history=4096, threads=threads, context=2048)
        model = self._target("gemma4-e2b" if variant == "mobile" else variant)
        name = f"{variant}-{number}"
        path = self._folder / (name if variant == "mobile" else f"{name}.gguf")
        if not path.exists() and variant == "mobile":  # the only ones whose rounded logits are often equal
            save_tokenizer(save_mobile(path, packed=number % 2 == 1, seed=number))
        elif not path.exists():
            save_gguf(model, path, FORMATS[number % len(FORMATS)])
        lora = {adapter: self._folder / f"{variant}-{adapter}" for adapter in ADAPTERS}
        for seed, (adapter, folder) in enumerate(lora.items()):
            if not folder.exists():
                save_adapter(adapted(model, seed=seed, **ADAPTERS[adapter]), folder)
        assistant = None
        if drafter != "none" and variant.startswith(("gemma4", "mobile")):
            assistant = self._folder / f"{name}-{drafter}"
            if not assistant.exists():
                made = make_assistant(model.config.get_text_config(), ordered=drafter != "dense", seed=number)
                if drafter == "broken":
                    with torch.no_grad():
                        made.post_projection.weight[::3] = float("nan")
                save_folder(made, assistant)
        llm = LLM(
            path,
            drafter=assistant,
            lookup_history=2048,
            threads=threads,
            context=CONTEXT,
            kv_cache_dtype=("float16", "float32", "int8")[number % 3],
            lora=lora,
        )
        (speak_json if number % 2 else speak_words)(llm)
        return llm


def random_model(rng: random.Random, models: Models, demo_share: float, threads: Sequence[int]) -> LLM:
    """A model of any kind."""
    if rng.random() < demo_share:
        return models.get("demo", "none", rng.choice(threads), 0)
    variant = rng.choice(["mobile", *(name for name in VARIANTS if not name.startswith("assistant"))])
    return models.get(variant, rng.choice(DRAFTERS), rng.choice(threads), rng.randrange(4))


def random_prompt(rng: random.Random, vocabulary: int, window: int, longest: int) -> list[int]:
    """Random tokens, repeated motifs, or both; its length often lies around the sliding window."""
    length = rng.choice(
        [rng.randint(1, 2 * WINDOW), rng.randint(1, 2 * WINDOW), rng.randint(window - 3, window + 3), 3 * WINDOW]
    )
    length = min(length, longest)
    few = [rng.randrange(3, vocabulary) for _ in range(rng.randint(1, 12))]
    kind = rng.randrange(3)
    if kind == 0:
        return [rng.randrange(3, vocabulary) for _ in range(length)]
    if kind == 1:
        return (few * length)[:length]
    return [rng.choice(few) if rng.random() < 0.8 else rng.randrange(3, vocabulary) for _ in range(length)]


def random_params(rng: random.Random, vocabulary: int, most: int) -> dict[str, Any]:
    """Any sampling parameters; most requests use few of them, as people do."""
    params: dict[str, Any] = {"max_tokens": rng.randint(1, most), "seed": rng.getrandbits(64)}

    def perhaps(chance: float, name: str, *values: Any) -> None:
        if rng.random() < chance:
            params[name] = rng.choice(values)

    perhaps(0.6, "temperature", 0.3, 0.7, 1.0, 1.5)
    perhaps(0.25, "top_k", 1, 5, 50)
    perhaps(0.25, "top_p", 0.5, 0.8, 0.95)
    perhaps(0.2, "min_p", 0.02, 0.2)
    perhaps(0.15, "typical_p", 0.3, 0.9)
    perhaps(0.1, "cache_prompt", False)
    perhaps(0.2, "cache_salt", "a", "b")
    perhaps(0.2, "repetition_penalty", 0.8, 1.1, 1.5)
    perhaps(0.2, "presence_penalty", -0.5, 0.4, 2.0)
    perhaps(0.2, "frequency_penalty", -0.3, 0.2, 1.0)
    perhaps(0.2, "logprobs", 0, 1, 5)
    perhaps(0.2, "min_tokens", rng.randint(0, params["max_tokens"]))
    perhaps(0.1, "ignore_end", True)
    perhaps(0.15, "stop_token_ids", tuple(rng.sample(range(vocabulary), min(40, vocabulary))))
    if rng.random() < 0.2:
        tokens = rng.sample(range(vocabulary), 3)
        params["logit_bias"] = {t: rng.choice([-float("inf"), -3.0, 2.5, 40.0]) for t in tokens}
    perhaps(0.2, "grammar", *GRAMMARS)
    if rng.random() < 0.4:
        params["stop"] = tuple(rng.sample(STOPS, rng.randint(1, 2)))
    return params


def random_turn(rng: random.Random, tokenizer: Tokenizer, vocabulary: int) -> dict[str, Any]:
    """What a turn of a conversation adds: calls of functions, a form of the answer, thoughts, control tokens as text.

    Control tokens are those of the model, or any tokens, which come more often.
    """
    known = tokenizer.special_tokens(SPECIAL)
    params: dict[str, Any] = {"grammar": rng.choice(SCHEMAS)} if known and rng.random() < 0.3 else {}
    if known and rng.random() < 0.4:
        several, form = rng.random() < 0.5, rng.choice(FORMS)
        read = [grammar.Function(*function) for function in rng.sample(FUNCTIONS, rng.randint(1, 3))]
        params["grammar"] = grammar.grammar_of_calls(read, tokenizer, several=several, form=form)
        if rng.random() < 0.3:
            form = rng.choice([form for form in FORMS if form is None or form.kind == "json_schema"])
            params["grammar"] = json_calls.grammar_of_calls(rng.sample(FUNCTIONS, 2), form)
    if rng.random() < 0.5:
        marks = rng.sample(range(vocabulary), 2)
        if known and rng.random() < 0.7:
            marks = [tokenizer.control_ids[text] for text in ("<|channel>", "<channel|>")]
            params["logit_bias"] = {mark: rng.choice([0.0, 3.0, 100.0]) for mark in marks}
        params["thoughts"] = Thoughts(*marks, rng.random() < 0.5, rng.choice([None, 0, 1, 6]))
    if known and rng.random() < 0.5:
        params["keep_special"] = SPECIAL
    return params


def random_media(rng: random.Random, prompt: list[int], hidden_size: int, seed: int) -> list[Medium]:
    """Up to three media in a prompt; the same ones come again and again."""
    media, first = list[Medium](), 0
    embeddings = np.random.default_rng(seed).normal(size=(EMBEDDED, hidden_size)).astype(np.float32)
    for _ in range(rng.randint(1, 3)):
        first += rng.randint(0, 20)
        rows = rng.choice([1, 5, 12])
        if first + rows > len(prompt):
            break
        at = rng.randrange(3)
        media.append(Medium(first, embeddings[at : at + rows], bytes([seed, at, rows])))
        prompt[first : first + rows] = [0] * rows
        first += rows
    return media


def random_prediction(rng: random.Random, answer: list[int], vocabulary: int) -> tuple[int, ...]:
    """What a client may expect of an answer: it, another text, or it with tokens replaced, inserted and left out."""
    expected, wrong = list(answer), [rng.randrange(vocabulary) for _ in range(rng.randint(1, 20))]
    for _ in range(rng.randint(0, 4)):
        begin = rng.randint(0, len(expected))
        end = rng.randint(begin, min(begin + 6, len(expected)))
        expected[begin:end] = rng.sample(wrong, rng.randint(0, min(3, len(wrong))))
    return tuple(rng.choice([answer, wrong, expected, expected]))


def random_suppressed(rng: random.Random, vocabulary: int) -> Suppressed:
    """Mostly none; else a few tokens, as checkpoints have them, or many, so that they are often the likeliest."""
    counts = [rng.choice([0, 0, 2, min(99, vocabulary // 5)]) for _ in range(2)]
    always, first = (tuple(sorted(rng.sample(range(vocabulary), count))) for count in counts)
    return Suppressed(always, first)


def given_back(request: Request) -> tuple[Any, ...]:
    """All that must not depend on drafting."""
    out = request.output()
    return out.token_ids, out.text, out.finish_reason, out.stop_reason, out.logprobs, out.stats.reasoning_tokens


def answer(llm: LLM, prompt: list[int], params: SamplingParams, media: Sequence[Medium]) -> Request:
    """One request alone."""
    request = llm.parts.engine.add(list(prompt), params, media)
    while not request.ended:
        llm.parts.engine.step()
    return request


def random_system(rng: random.Random, prompt: list[int], vocabulary: int) -> list[int]:
    """What several prompts begin with: some tokens, or pages of them."""
    if rng.random() < 0.5:
        return prompt[: rng.randint(0, 40)]
    return [rng.randrange(3, vocabulary) for _ in range(rng.choice([100, 128, 129, 250, 300]))]


@contextmanager
def random_memory(rng: random.Random, llm: LLM, longest: int) -> Iterator[None]:
    """Within it there may be little memory for keys and values, beside the longest request, and few checkpoints."""
    caches = llm.parts.caches
    kept, budget, newest, every = caches.most_bytes, caches.admission.budget, checkpoints.NEWEST, checkpoints.EVERY
    page = sum(caches.tree.page_bytes)
    if rng.random() < 0.5:
        caches.admission.budget = sequence_bytes(caches.pages, longest, PREFILL_CHUNK) + rng.choice([0, 1, 5]) * page
        caches.most_bytes = rng.choice([kept, rng.randint(0, 4) * page])
    checkpoints.NEWEST, checkpoints.EVERY = rng.choice([(newest, every), (0, 256), (64, 4096)])
    try:
        yield
    finally:
        caches.most_bytes, caches.admission.budget = kept, budget
        checkpoints.NEWEST, checkpoints.EVERY = newest, every


def run_together(
    rng: random.Random, llm: LLM, cases: Sequence[tuple[list[int], dict[str, Any], list[Medium], Any]]
) -> list[Request]:
    """Answers all requests in one batch; some join late, some come twice and are cancelled, often in their prompt."""
    engine, running, leaving = llm.parts.engine, list[Request](), list[Request]()
    for prompt, params, given, draft in cases:
        if rng.random() < 0.2:
            leaving.append(engine.add(list(prompt), SamplingParams(**params, draft=draft), given))
        running.append(engine.add(list(prompt), SamplingParams(**params, draft=draft), given))
        for _ in range(rng.choice([0, 0, 2])):
            engine.step()
        if leaving and rng.random() < 0.5:
            engine.cancel(leaving.pop())
    while not all(request.ended for request in running):
        engine.step()
        if leaving and rng.random() < 0.1:
            engine.cancel(leaving.pop())
    for request in leaving:
        engine.cancel(request)
    assert llm.parts.caches.in_use == 0
    assert llm.parts.caches.pages.bytes_in_use <= llm.parts.caches.admission.budget
    return running


def fuzz_round(
    rng: random.Random, models: Models, demo_share: float, threads: Sequence[int] = THREADS
) -> tuple[int, int, str | None]:
    """One round: (requests, draft tokens accepted, what differed or None)."""
    llm = random_model(rng, models, demo_share, threads)
    demo = llm.parts.target.vocabulary != VOCAB
    window = next(layer.window for layer in llm.config.layers if layer.window)
    most = 16 if demo else 40
    cases = []
    for _ in range(rng.randint(1, 6)):
        # The demo's window is long: few prompts reach it, and the time goes into more requests.
        around = WINDOW if demo and rng.random() < 0.95 else window
        prompt = random_prompt(rng, llm.parts.target.vocabulary, around, llm.context - 1)
        params = random_params(rng, llm.parts.target.vocabulary, most)
        if rng.random() < 0.5:
            params |= random_turn(rng, llm.tokenizer, llm.parts.target.vocabulary)
        if rng.random() < 0.5:
            params["lora"] = rng.choice([None, *llm.parts.adapters])
        cases.append((prompt, params))
    if rng.random() < 0.4:  # prompts that share a beginning, of which each takes some
        system = random_system(rng, cases[0][0], llm.parts.target.vocabulary)
        cases = [
            (system[: rng.choice([len(system), rng.randint(0, len(system))])] + prompt, params)
            for prompt, params in cases
        ]
        cases = [(prompt[: llm.context - 1], params) for prompt, params in cases]
    width, seed = llm.config.hidden_size, rng.randrange(2)
    media = [random_media(rng, prompt, width, seed) if rng.random() < 0.15 else [] for prompt, _ in cases]
    engine, planner = llm.parts.engine, llm.parts.engine.planner
    ends = {rng.randrange(llm.parts.target.vocabulary) for _ in range(rng.choice([0, 1, 20]))}
    engine._end_tokens = frozenset(ends)
    suppressed = random_suppressed(rng, llm.parts.target.vocabulary)
    llm.parts.target.config = replace(llm.config, suppressed=suppressed)
    stand_in = StandInDrafter(rng, llm.parts.target.vocabulary, rng.choice([0.0, 0.5, 0.9, 1.0]))
    expected = []
    for (prompt, params), given in zip(cases, media, strict=True):
        plain = answer(llm, prompt, SamplingParams(**params, draft="off"), given)
        expected.append(given_back(plain))
        stand_in.know(prompt, plain.answer)
        if rng.random() < 0.3:
            params["prediction"] = random_prediction(rng, plain.answer, llm.parts.target.vocabulary)
        if params.get("logprobs") is not None and not given and rng.random() < 0.2:
            first = bool(suppressed.first)  # the scores of a text do not depend on where an answer begins
            scores = llm.score([plain.tokens], lora=params.get("lora"))[0][len(prompt) - 1 + first :]
            if scores != [entry.logprob for entry in plain.output().logprobs or ()][first:]:
                return len(cases), 0, f"{llm.path.name}, {params}, prompt {prompt}:\n{scores}\n{expected[-1]}"
    own, chunk = planner.drafters, engine.chunk
    branches = mtp.BRANCHES
    planner.drafters = [d for d in (*own, stand_in) if rng.random() < 0.7]
    mtp.BRANCHES = rng.choice([1, 2, 3, 8])
    engine.chunk = rng.choice([1, 3, 16, 256, 256])
    drafts = [rng.choice(["auto", "auto", rng.randint(1, 20)]) for _ in cases]
    limits = [min(len(prompt) + params["max_tokens"], llm.context) for prompt, params in cases]
    try:
        with random_memory(rng, llm, max(limits)):
            running = run_together(rng, llm, [(*case, *more) for case, *more in zip(cases, media, drafts, strict=True)])
    finally:
        planner.drafters, engine.chunk, mtp.BRANCHES = own, chunk, branches
        engine._end_tokens = frozenset(llm.config.end_token_ids)
        llm.parts.target.config = llm.config
    for request, plain, (prompt, params), draft in zip(running, expected, cases, drafts, strict=True):
        if (drafted := given_back(request)) != plain:
            what = f"{llm.path.name}, {llm.parts.threads} threads, draft={draft}, {params}, prompt {prompt}"
            return len(cases), 0, f"{what}:\n{drafted}\n{plain}"
    return len(cases), sum(request.stats.accepted for request in running), None


def run(requests: int, seed: int, demo_share: float, threads: Sequence[int]) -> int:
    """Rounds until so many requests were compared; the exit status."""
    done = accepted = rounds = 0
    started = said = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        models = Models(Path(folder))
        while done < requests:
            count, right, problem = fuzz_round(random.Random(seed + rounds), models, demo_share, threads)
            if problem:
                print(f"DIFFERENT in the round of --seed {seed + rounds}: {problem}", file=sys.stderr)
                return 1
            done, accepted, rounds = done + count, accepted + right, rounds + 1
            if time.monotonic() - said > 10 or done >= requests:
                said = time.monotonic()
                print(f"{done} requests, {accepted} draft tokens accepted, {said - started:.0f} s", flush=True)
    print(f"{done} requests from seed {seed}: all equal to plain decoding")
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--demo", type=float, default=0.1, metavar="SHARE", help="of the rounds that use the demo")
    parser.add_argument("--threads", type=int, nargs="+", default=THREADS, help="thread counts to choose from")
    arguments = parser.parse_args()
    sys.exit(run(arguments.requests, arguments.seed, arguments.demo, arguments.threads))
