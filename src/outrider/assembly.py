"""Recorded models, lowered to the CPU's executor."""

from __future__ import annotations

from collections.abc import Sequence

from outrider.backends.cpu import KvFormat, ThreadPool
from outrider.backends.cpu.lowering import CpuExecutor
from outrider.backends.cpu.weights import WeightStore
from outrider.checkpoints.adapters import Adapter
from outrider.checkpoints.config import AssistantConfig, ModelConfig
from outrider.models.assistant import LOGITS, Drafting, record_assistant
from outrider.models.gemma import Forward, record_gemma, tap
from outrider.program import adapted


def cpu_target(
    config: ModelConfig,
    weights: WeightStore,
    pool: ThreadPool,
    *,
    max_rows: int,
    kv_format: KvFormat,
    taps: tuple[int, ...] = (),
    adapters: Sequence[Adapter] = (),
) -> Forward:
    """A target ready to run.

    Args:
        max_rows: most rows of one pass.
        kv_format: format of keys and values.
        taps: layers whose hidden state is kept for every row of a pass.
        adapters: that rows may name, by their number in it.
    """
    low_rank = [adapter.low_rank for adapter in adapters]
    program = adapted(record_gemma(config, weights, taps=taps), {name for adds in low_rank for name in adds})
    executor = CpuExecutor(program, weights, pool, max_rows=max_rows, kv_format=kv_format, adapters=low_rank)
    return Forward(config, executor, {layer: tap(layer) for layer in taps})


def cpu_drafter(
    target: ModelConfig,
    target_weights: WeightStore,
    assistant: AssistantConfig,
    weights: WeightStore,
    pool: ThreadPool,
    *,
    max_rows: int,
    kv_format: KvFormat,
) -> Drafting:
    """An MTP drafter ready to run, checked with `check_pair` before; `kv_format` is that of the target's cache."""
    program = record_assistant(target, assistant, weights)
    executor = CpuExecutor(
        program, weights, pool, max_rows=max_rows, kv_format=kv_format, target_weights=target_weights
    )
    if not assistant.use_ordered_embeddings:
        return Drafting(executor)
    ordering = weights.integers("masked_embedding.token_ordering").reshape(assistant.num_centroids, -1)
    return Drafting(executor, LOGITS, ordering, assistant.centroid_top_k)
