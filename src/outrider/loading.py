"""Loading a model: checkpoint -> weights -> program -> tokenizer -> drafters, each a named step."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from outrider.assembly import cpu_target
from outrider.backends import cpu
from outrider.cache import CachePool, cache_bytes
from outrider.cache.disk import MOST_BYTES, PageStore
from outrider.cache.disk_nodes import DiskNodes
from outrider.cache.identity import model_identity
from outrider.cache.states import StatePages
from outrider.chat.template import ChatTemplate, chat_template_of
from outrider.checkpoints import open_checkpoint
from outrider.checkpoints.adapters import Adapter, merged, open_adapter
from outrider.checkpoints.chat_template import is_refusing, special_tokens
from outrider.checkpoints.checkpoint import Checkpoint
from outrider.checkpoints.config import AssistantConfig, ModelConfig
from outrider.checkpoints.tokenizer_tables import TokenizerTables
from outrider.cores import cores, too_many_threads
from outrider.drafters.pairing import FoundDrafter, choose_drafter
from outrider.drafters.registry import Settings, kind_of, make_drafters, state_bytes, tapped_layers
from outrider.engine.driver import Driver
from outrider.engine.engine import Engine
from outrider.engine.measure import Measure
from outrider.engine.prefill import PREFILL_CHUNK
from outrider.engine.target import Target
from outrider.errors import CheckpointError, UsageError, given
from outrider.fit import USUAL_CONTEXT, Footprint, Setting, check_fit
from outrider.load_options import LoadOptions
from outrider.machine import available_bytes, memory
from outrider.models.gemma import kv_layers
from outrider.prompts import Prompts
from outrider.quant import Packed, Quantization, WeightStore, quantized
from outrider.sampling.constraint import GrammarCompiler
from outrider.sampling.params import params_with
from outrider.speculation.costs import MOST_ROWS
from outrider.speculation.planner import DraftPlanner
from outrider.tokenizer import Tokenizer, open_tokenizer
from outrider.tokenizer.end_tokens import end_tokens

Progress = Callable[[str, float], None]
"""Called with the step and the fraction done, from 0 to 1."""

_CACHED = 0.8
"""Of the memory that is available after the weights are packed: for keys and values. The rest is for logits, media,
drafters and the requests themselves."""
_log = logging.getLogger("outrider.loading")


@dataclass
class Loaded:
    """A loaded model's parts, for commands, server and tests.

    `prompts` turns texts and conversations into token ids. `sampling` are the fields of SamplingParams that the
    checkpoint recommends. `adapters` are by name. `packed` reports the error of quantizing on load, None without.
    `weight_bytes` are those of the packed weights.
    """

    path: Path
    config: ModelConfig
    context: int
    threads: int
    kv_cache_dtype: cpu.KvFormat
    tokenizer: Tokenizer
    prompts: Prompts
    grammars: GrammarCompiler
    sampling: Mapping[str, Any]
    target: Target
    adapters: Mapping[str, Adapter]
    drafter: FoundDrafter
    caches: CachePool
    measure: Measure
    engine: Engine
    driver: Driver
    packed: Packed | None
    weight_bytes: int
    load_seconds: float

    @property
    def chat(self) -> ChatTemplate | None:
        """The model's chat template; None for a base model, and for a template that cannot be used."""
        template = self.prompts.template
        return None if template is None or is_refusing(template.source) else template


def load(source: str | Path, options: LoadOptions, progress: Progress) -> Loaded:
    """Loads the model that `source` names. The steps, in order, are the functions below.

    Raises:
        CheckpointError: the model cannot be loaded; the message says why and what to do.
        UsageError: an option that does not fit the model.
    """
    started = time.perf_counter()
    checkpoint, config, tables = open_target(source)
    progress("building the tokenizer", 1.0)
    template = chat_template_of(tables)
    tokenizer = open_tokenizer(tables, path=checkpoint.path, written="" if template is None else template.written)
    ends = end_tokens(config.end_token_ids, tokenizer, special_tokens(tables).get("eos_token"))
    config = replace(config, end_token_ids=ends)
    own_context, pool = context_of(config, options.context), open_pool(options.threads)
    drafter = choose_drafter(source, checkpoint.path, config, options.drafter)
    drafters = open_drafters(drafter.path, config, options)
    checkpoint, adapters = open_adapters(checkpoint, config, options)
    check_memory(checkpoint, config, drafters, options)
    states = StatePages(state_bytes(config, [of.config for of in drafters.values()]))
    pages, store = open_pages(checkpoint, config, adapters, drafters, states, options)
    weights, packed = open_weights(checkpoint, options.quantize, pool, progress)
    target = record_target(config, drafters, adapters, weights, pool, options)
    weight_bytes = weights.packed_bytes
    caches = open_caches(config, own_context, options, pages, states, store)
    context = caches.longest(own_context)
    if context < own_context:
        _log.info("requests may have %d of %d tokens: more keys and values do not fit", context, own_context)
    tokenizer.pad(target.vocabulary)
    grammars = grammar_compiler(tokenizer, target.vocabulary)
    prompts = Prompts(
        *(tokenizer, template, grammars),
        name=checkpoint.path.name,
        vocabulary=target.vocabulary,
        context=context,
        most_context=config.context_length,
        adapters=tuple(adapters),
        defaults=params_with(checkpoint.sampling),
    )
    recorded = {lora: record_drafter(of, config, weights, pool, options) for lora, of in drafters.items()}
    progress("measuring pass costs", 1.0)
    measure = Measure(target, caches)
    planner = make_planner(measure, target, tokenizer, recorded, states.kinds, options)
    engine = Engine(target, tokenizer, caches, planner, grammars, context=context, chunk=PREFILL_CHUNK)
    load_seconds = time.perf_counter() - started
    loaded = Loaded(
        path=checkpoint.path,
        config=config,
        context=context,
        threads=pool.size,
        kv_cache_dtype=options.kv_cache_dtype,
        tokenizer=tokenizer,
        prompts=prompts,
        grammars=grammars,
        sampling=checkpoint.sampling,
        target=target,
        adapters=adapters,
        drafter=drafter,
        caches=caches,
        measure=measure,
        engine=engine,
        driver=Driver(engine, load_seconds, caches.flush),
        packed=packed,
        weight_bytes=weight_bytes,
        load_seconds=load_seconds,
    )
    _log.info("loaded %s in %.2f s; drafter: %s", loaded.path, loaded.load_seconds, drafter.why)
    return loaded


def open_target(source: str | Path) -> tuple[Checkpoint, ModelConfig, TokenizerTables | Path]:
    """A model's checkpoint, with its config and its tokenizer's source. Raises CheckpointError."""
    if not isinstance(source, str | Path):
        expected = '"demo", a path, an id of the hub or "ollama:NAME" (a str or a pathlib.Path)'
        raise UsageError(f"model must be {expected}, not {given(source)}")
    checkpoint = open_checkpoint(source)
    if isinstance(checkpoint.config, AssistantConfig):
        raise CheckpointError("is a drafter, not a model", path=checkpoint.path, remedy="Pass it as the drafter")
    if checkpoint.tokenizer is None:
        raise CheckpointError("has no tokenizer", path=checkpoint.path, remedy="Put its tokenizer.json beside it")
    return checkpoint, checkpoint.config, checkpoint.tokenizer


def open_adapters(
    checkpoint: Checkpoint, config: ModelConfig, options: LoadOptions
) -> tuple[Checkpoint, dict[str, Adapter]]:
    """The adapters by name; or the checkpoint with the only one merged into it. Raises CheckpointError."""
    if isinstance(options.lora, Mapping):
        return checkpoint, {name: open_adapter(path, config) for name, path in options.lora.items()}
    return merged(checkpoint, open_adapter(options.lora, config)), {}


def context_of(config: ModelConfig, wanted: int | None) -> int:
    """Most positions of one request. Raises UsageError beyond the model's own limit."""
    if wanted is not None and wanted > config.context_length:
        raise UsageError(f"context must lie between 2 and the model's {config.context_length}, not {wanted}")
    return wanted or config.context_length


def check_memory(
    checkpoint: Checkpoint, config: ModelConfig, drafters: Mapping[str | None, Checkpoint], options: LoadOptions
) -> None:
    """Refuses a model that does not fit into memory, before its weights are read. Raises UsageError."""
    of_drafters = {f"{lora}: {name}": tensor for lora, of in drafters.items() for name, tensor in of.tensors.items()}
    footprint = Footprint(config, checkpoint.tensors, of_drafters)
    context = options.context or config.context_length
    setting = Setting(context, options.kv_cache_dtype, options.quantize)
    check_fit(checkpoint.path.name, footprint, setting, memory(), asked=options.context is not None)


def open_pool(wanted: int | None) -> cpu.ThreadPool:
    """The compute threads: one for each usable core unless a number is given. Warns of more threads than cores."""
    threads = wanted or cores().threads
    if (warning := too_many_threads(threads)) is not None:
        warnings.warn(warning, stacklevel=4)  # at the caller of LLM(...)
    return cpu.ThreadPool(threads)


def open_weights(
    checkpoint: Checkpoint, quantize: Quantization | None, pool: cpu.ThreadPool, progress: Progress
) -> tuple[WeightStore, Packed | None]:
    """The weights, quantized if requested; they are packed while the program is lowered."""
    packed = None if quantize is None else quantized(checkpoint, quantize, pool, progress)
    tensors = packed.tensors if packed else checkpoint.tensors
    total = sum(tensor.nbytes for tensor in tensors.values() if len(tensor.shape) > 1)
    return WeightStore(tensors, pool, _fraction_of(total, progress)), packed


def record_target(
    config: ModelConfig,
    drafters: Mapping[str | None, Checkpoint],
    adapters: Mapping[str, Adapter],
    weights: WeightStore,
    pool: cpu.ThreadPool,
    options: LoadOptions,
) -> Target:
    """The target's program, with the taps of its drafters, lowered for the CPU: that packs its weights and adapters."""
    taps, kv_format = tapped_layers(config, [of.config for of in drafters.values()]), options.kv_cache_dtype
    sizes: dict[str, Any] = {"max_rows": PREFILL_CHUNK, "kv_format": kv_format}
    forward = cpu_target(config, weights, pool, taps=taps, adapters=list(adapters.values()), **sizes)
    return Target(forward, list(adapters))


def grammar_compiler(tokenizer: Tokenizer, vocabulary: int) -> GrammarCompiler:
    """Compiles grammars for this tokenizer's tokens."""
    return GrammarCompiler(
        lambda token: tokenizer.piece(token, skip_special=False), tokenizer.vocab_size, tokenizer.hidden, vocabulary
    )


def open_drafters(path: Path | None, config: ModelConfig, options: LoadOptions) -> dict[str | None, Checkpoint]:
    """The drafters' checkpoints: the target's, at `path` if it has one, for None, and those of adapters by name."""
    paths = ({} if path is None else {None: path}) | dict(options.lora_drafters)
    return {lora: open_drafter(of, config) for lora, of in paths.items()}


def open_drafter(path: str | Path, config: ModelConfig) -> Checkpoint:
    """A drafter's checkpoint. Raises CheckpointError if it does not fit the target."""
    checkpoint = open_checkpoint(path)
    if (found := kind_of(checkpoint.config)) is None:
        raise CheckpointError("is a model, not a drafter", path=checkpoint.path, remedy="Pass its MTP drafter")
    found.check(config, checkpoint.config)
    return checkpoint


def record_drafter(
    checkpoint: Checkpoint, config: ModelConfig, weights: WeightStore, pool: cpu.ThreadPool, options: LoadOptions
) -> dict[str, Any]:
    """A drafter's program by its kind."""
    kind = kind_of(checkpoint.config)
    assert kind is not None, "checked as it was opened"
    tensors = quantized(checkpoint, options.quantize, pool).tensors if options.quantize else checkpoint.tensors
    own = WeightStore(tensors, pool)
    kv_format = options.kv_cache_dtype
    program = kind.record(config, weights, checkpoint.config, own, pool, max_rows=MOST_ROWS, kv_format=kv_format)
    return {kind.name: program}


def open_pages(
    checkpoint: Checkpoint,
    config: ModelConfig,
    adapters: Mapping[str, Adapter],
    drafters: Mapping[str | None, Checkpoint],
    states: StatePages,
    options: LoadOptions,
) -> tuple[cpu.KvPages, PageStore | None]:
    """The memory of keys and values, and the folder for those that leave it. Raises UsageError if it cannot be used."""
    pages = cpu.KvPages(cpu.kv_shapes(kv_layers(config)), options.kv_cache_dtype)
    if options.prefix_cache_dir is None:
        return pages, None
    keeping = [of for of in drafters.values() if (kind := kind_of(of.config)) and kind.name in states.kinds]
    identity = model_identity(
        checkpoint, adapters, options.quantize, pages, options.kv_cache_dtype, states, drafters=keeping
    )
    page_bytes = [*map(pages.page_bytes, range(len(pages.windows))), *states.page_bytes]
    folder = Path(options.prefix_cache_dir).expanduser()
    return pages, PageStore(folder, identity, page_bytes, most_bytes=options.prefix_cache_disk or MOST_BYTES)


def open_caches(
    config: ModelConfig,
    context: int,
    options: LoadOptions,
    pages: cpu.KvPages,
    states: StatePages,
    store: PageStore | None,
) -> CachePool:
    """The key-value caches, in the memory that the weights leave, or as much as `check_memory` has counted with."""
    available, kept, layers = available_bytes(), options.prefix_cache_bytes, kv_layers(config)
    least = cache_bytes(layers, options.context or min(context, USUAL_CONTEXT), PREFILL_CHUNK, options.kv_cache_dtype)
    budget = options.kv_cache_bytes or max(int(_CACHED * available), least)
    return CachePool(
        pages,
        context + PREFILL_CHUNK,
        PREFILL_CHUNK,
        budget=budget,
        kept_bytes=available // 4 if kept is None else kept,
        store=None if store is None else DiskNodes(store, pages, states, budget),
        states=states,
    )


def make_planner(
    measure: Measure,
    target: Target,
    tokenizer: Tokenizer,
    recorded: Mapping[str | None, dict[str, Any]],
    keeping: Sequence[str],
    options: LoadOptions,
) -> DraftPlanner:
    """The planner, with the cost of passes measured now. `keeping`: the drafters that keep a state of pages."""
    by_adapter = {lora: of for lora, of in recorded.items() if lora is not None}
    own = recorded.get(None, {})
    settings = Settings(target.vocabulary, options.lookup, options.lookup_history, tokenizer, own, by_adapter)
    return DraftPlanner(measure.cost_curve(), make_drafters(settings), keeping)


def _fraction_of(total: int, progress: Progress) -> Callable[[int], None]:
    """Reports packed bytes as a fraction of `total`."""
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        progress("packing weights", min(done / max(total, 1), 1.0))

    return advance
