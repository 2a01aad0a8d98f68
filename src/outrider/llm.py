"""The public face: load a model, generate, stream."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from outrider.assembly import cpu_target
from outrider.backends import cpu
from outrider.cache import CachePool, available_bytes
from outrider.chat.template import chat_template_of
from outrider.checkpoints import open_checkpoint
from outrider.checkpoints.config import AssistantConfig, ModelConfig
from outrider.drafters.pairing import FoundDrafter, find_drafter
from outrider.drafters.registry import Settings, kind_of, make_drafters
from outrider.engine.driver import Answer, Driver
from outrider.engine.engine import Engine
from outrider.engine.measure import Measure
from outrider.engine.outputs import Piece, RequestOutput
from outrider.engine.target import Target
from outrider.errors import CheckpointError, UsageError
from outrider.models.gemma import kv_layers
from outrider.quant import QUANTIZATIONS, Packed, Quantization, WeightStore, quantized
from outrider.sampling.constraint import GrammarCompiler
from outrider.sampling.params import SamplingParams
from outrider.speculation.costs import MOST_ROWS
from outrider.speculation.planner import DraftPlanner
from outrider.tokenizer import open_tokenizer

PREFILL_CHUNK = 256
"""Prompt tokens of one pass: enough to amortise reading the weights, few enough for their rows to stay in cache."""


class LLM:
    """A model ready to answer.

    Several threads may use one: their calls share passes, and the tokens are those of each call alone. So may a forked
    child; requests that ran in its parent at the fork are not its own.

    Args:
        model: "demo", a .gguf file, a folder with config.json and *.safetensors, or an id of the hub ("owner/name").
        drafter: the MTP drafter, named like a model; None for none; "auto" for the one that belongs to the model,
            if it is where people keep it (see `models.pairing`). `LLM.drafter` says which it is, and why.
        lookup: whether drafts may come from what the prompt and the answer already said.
        lookup_history: tokens of earlier requests that drafts may come from too (some 600 bytes each); 0 for none.
        prefix_cache_bytes: memory for the keys and values of finished sequences, kept for prompts that begin as they
            did, least recently used out first; 0 for none, None for a quarter of what is available after loading.
        threads: None for all cores this process may use.
        context: most positions of one request; None for the model's own limit.
        progress: called with (what, fraction from 0 to 1) while loading.
        kv_cache_dtype: how keys and values are kept: "float16", "float32", or "int8" (half the memory of float16,
            for 0.5 % of perplexity on the demo model).
        quantize: "q4_0" or "q8_0" for floating-point weights in blocks of 4 or 8 bits (see `quant.packs`); None for
            weights as the checkpoint stores them. `LLM.packed` says what it cost.

    Raises:
        CheckpointError: the model cannot be loaded; the message says why and what to do.
        UsageError: an argument out of its range.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        drafter: str | Path | None = "auto",
        lookup: bool = True,
        lookup_history: int = 0,
        prefix_cache_bytes: int | None = None,
        threads: int | None = None,
        context: int | None = None,
        progress: Callable[[str, float], None] | None = None,
        kv_cache_dtype: cpu.KvFormat = "float16",
        quantize: Quantization | None = None,
    ) -> None:
        started = time.perf_counter()
        if threads is not None and not 1 <= threads <= 256:
            raise UsageError(f"threads must lie between 1 and 256, not {threads}")
        if quantize is not None and quantize not in QUANTIZATIONS:
            raise UsageError(f"quantize must be None or one of {', '.join(QUANTIZATIONS)}, not {quantize!r}")
        if kv_cache_dtype not in cpu.KV_FORMATS:
            raise UsageError(f"kv_cache_dtype must be one of {', '.join(cpu.KV_FORMATS)}, not {kv_cache_dtype!r}")
        checkpoint = open_checkpoint(model)
        if isinstance(checkpoint.config, AssistantConfig):
            raise CheckpointError("is a drafter, not a model", path=checkpoint.path, remedy="Pass it as the drafter")
        self.config: ModelConfig = checkpoint.config
        if context is not None and not 2 <= context <= self.config.context_length:
            raise UsageError(f"context must lie between 2 and the model's {self.config.context_length}, not {context}")
        if checkpoint.tokenizer is None:
            raise CheckpointError("has no tokenizer", path=checkpoint.path, remedy="Put its tokenizer.json beside it")
        if lookup_history < 0:
            raise UsageError(f"lookup_history must be 0 (none) or more tokens, not {lookup_history}")
        if prefix_cache_bytes is not None and prefix_cache_bytes < 0:
            raise UsageError(f"prefix_cache_bytes must be 0 (none) or more, not {prefix_cache_bytes}")
        self.path = checkpoint.path
        self.context = context or self.config.context_length
        self.threads = threads or usable_cores()
        if (warning := too_many_threads(self.threads)) is not None:
            warnings.warn(warning, stacklevel=2)
        self.kv_cache_dtype = kv_cache_dtype
        pool = cpu.ThreadPool(self.threads)
        self.packed: Packed | None = None
        if quantize is not None:
            self.packed = quantized(checkpoint, quantize, pool, progress or (lambda *_: None))
        tensors = self.packed.tensors if self.packed else checkpoint.tensors
        total = sum(tensor.nbytes for tensor in tensors.values() if len(tensor.shape) > 1)
        weights = WeightStore(tensors, pool, _fraction_of(total, progress))
        forward = cpu_target(self.config, weights, pool, max_rows=PREFILL_CHUNK, kv_format=kv_cache_dtype)
        self.weight_bytes = weights.packed_bytes
        if progress:
            progress("building the tokenizer", 1.0)
        self.tokenizer = tokenizer = open_tokenizer(checkpoint.tokenizer, path=checkpoint.path)
        self.chat = chat_template_of(checkpoint.tokenizer)
        """The model's chat template; None for a base model."""
        self.target = Target(forward)
        self.drafter = self._choose_drafter(model, drafter)
        recorded = self._open_drafter(self.drafter.path, weights, pool, kv_cache_dtype, quantize)
        self.caches = CachePool(
            cpu.kv_shapes(kv_layers(self.config)),
            self.context + PREFILL_CHUNK,
            PREFILL_CHUNK,
            kv_format=kv_cache_dtype,
            kept_bytes=available_bytes() // 4 if prefix_cache_bytes is None else prefix_cache_bytes,
        )
        self.measure = Measure(self.target, self.caches)
        settings = Settings(self.target.vocabulary, lookup=lookup, history=lookup_history, recorded=recorded)
        planner = DraftPlanner(self.measure.cost_curve(), make_drafters(settings))
        self.grammars = GrammarCompiler(
            lambda token: tokenizer.piece(token, skip_special=False),
            tokenizer.vocab_size,
            tokenizer.hidden,
            self.target.vocabulary,
        )
        self.engine = Engine(
            self.target, self.tokenizer, self.caches, planner, self.grammars, context=self.context, chunk=PREFILL_CHUNK
        )
        self.load_seconds = time.perf_counter() - started
        self._driver = Driver(self.engine, self.load_seconds)

    def __del__(self) -> None:
        if hasattr(self, "_driver"):
            self._driver.stop()

    def _choose_drafter(self, model: str | Path, drafter: str | Path | None) -> FoundDrafter:
        if drafter is None:
            return FoundDrafter(None, "no MTP drafter wanted")
        if drafter == "auto":
            return find_drafter(model, self.path, self.config)
        return FoundDrafter(open_checkpoint(drafter).path, f"{drafter}, as asked")

    def _open_drafter(
        self,
        path: Path | None,
        weights: WeightStore,
        pool: cpu.ThreadPool,
        kv_format: cpu.KvFormat,
        quantize: Quantization | None,
    ) -> dict[str, Any]:
        """Loads a drafter, by its kind, and checks that it fits. Raises CheckpointError if it does not."""
        if path is None:
            return {}
        checkpoint = open_checkpoint(path)
        found = kind_of(checkpoint.config)
        if found is None:
            raise CheckpointError("is a model, not a drafter", path=checkpoint.path, remedy="Pass its MTP drafter")
        kind, reader = found
        reader.check(self.config, checkpoint.config)
        tensors = quantized(checkpoint, quantize, pool).tensors if quantize else checkpoint.tensors
        store = WeightStore(tensors, pool)
        program = reader.record(
            self.config, weights, checkpoint.config, store, pool, max_rows=MOST_ROWS, kv_format=kv_format
        )
        return {kind: program}

    def generate(
        self, prompts: str | Sequence[str] | Sequence[Sequence[int]], params: SamplingParams | None = None
    ) -> list[RequestOutput]:
        """Answers every prompt, all of them sharing each pass.

        Args:
            prompts: a text, texts, or lists of token ids (taken as they are: no BOS is added).

        Raises:
            UsageError: a prompt is empty, too long for the context, or has ids outside the vocabulary; the grammar
                cannot be used, or took more work than a token may.
        """
        several: list[str | Sequence[int]] = [prompts] if isinstance(prompts, str) else list(prompts)
        encoded = [self.encode(prompt) for prompt in several]
        params = params or SamplingParams()
        self.check(params)
        answers = self._driver.submit(encoded, params)
        try:
            return [answer.output() for answer in answers]
        except BaseException:
            self._driver.cancel(answers)
            raise

    def stream(self, prompt: str | Sequence[int], params: SamplingParams | None = None) -> Iterator[Piece]:
        """The answer as it comes, pass by pass, with empty pieces while the prompt is computed.

        Closing the iterator cancels the request.
        """
        ids, params = self.encode(prompt), params or SamplingParams()
        self.check(params)
        pieces = self._pieces(self._driver.submit([ids], params, streams=True)[0])
        next(pieces)  # a generator that has not begun would not end the request either
        return pieces

    def _pieces(self, answer: Answer) -> Iterator[Piece]:
        try:
            yield Piece("", (), (), ())  # taken by `stream`
            yield from answer.pieces()
        finally:
            self._driver.cancel([answer])

    def chat_prompt(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        thinking: bool = False,
    ) -> list[int]:
        """The ids of a conversation in the model's own form, up to where its turn begins.

        Args:
            messages: objects with `role` ("system", "user", "assistant", "tool") and `content`, a text.
            tools: functions that the model may call, as OpenAI describes them.
            thinking: let the model reason first, where its template knows of that.

        Raises:
            UsageError: the model has no chat template, or it refuses these messages, or they are too long.
        """
        if self.chat is None:
            raise UsageError(f"{self.path.name} is a base model without a chat template: give it a text to go on from")
        text = self.chat.render(messages, tools=tools, thinking=thinking)
        self._check_length(text)
        return self.encode(self.tokenizer.encode(text, add_bos=False, parse_special=True))

    def check(self, params: SamplingParams) -> None:
        """That parameters fit this model.

        Raises:
            UsageError: they name a token that it does not have, or a grammar that cannot be used (see
                `GrammarCompiler.compile`).
        """
        wrong = next((token for token in params.logit_bias if not 0 <= token < self.target.vocabulary), None)
        if wrong is not None:
            raise UsageError(f"logit_bias names token {wrong}, outside the vocabulary of {self.target.vocabulary}")
        if params.grammar is not None:
            self.grammars.compile(params.grammar)

    def encode(self, prompt: str | Sequence[int]) -> list[int]:
        """The ids of a prompt, BOS included if it is a text.

        Raises:
            UsageError: as `generate`.
        """
        if isinstance(prompt, str):
            self._check_length(prompt)
        ids = self.tokenizer.encode(prompt) if isinstance(prompt, str) else [int(token) for token in prompt]
        if not ids:
            raise UsageError("the prompt is empty: give it at least one token")
        wrong = next((token for token in ids if not 0 <= token < self.target.vocabulary), None)
        if wrong is not None:
            raise UsageError(f"token id {wrong} is outside the vocabulary of {self.target.vocabulary}")
        if len(ids) >= self.context:
            raise self._too_long(str(len(ids)))
        return ids

    def _check_length(self, text: str) -> None:
        """Refuses a text that cannot fit before it is encoded: nobody should wait, or pay in memory, for that."""
        if len(text) > self.context and (fewest := self.tokenizer.fewest_tokens(text)) >= self.context:
            raise self._too_long(f"at least {fewest}")

    def _too_long(self, tokens: str) -> UsageError:
        return UsageError(
            f"the prompt has {tokens} tokens and leaves no room in a context of {self.context}: shorten it"
            + ("" if self.context == self.config.context_length else " or raise context")
        )


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def too_many_threads(threads: int) -> str | None:
    """Why so many threads are slow, if there are more than cores that this process may use."""
    cores = usable_cores()
    if threads <= cores:
        return None
    return f"{threads} threads share {cores} usable core(s) and wait for each other in every step: use {cores}"


def _fraction_of(total: int, progress: Callable[[str, float], None] | None) -> Callable[[int], None]:
    """Adds up bytes and reports the fraction done."""
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if progress:
            progress("packing weights", min(done / max(total, 1), 1.0))

    return advance
