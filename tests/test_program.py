"""A pass as data: what is recorded, that it can be read, and that two executors agree on it."""

from __future__ import annotations

import ast
import dataclasses
from pathlib import Path

import numpy as np
import pytest
from native_model import NativeModel
from tiny_checkpoints import VARIANTS, VOCAB, WINDOW, make_assistant, save_folder

from outrider import program
from outrider.assembly import cpu_drafter, cpu_target
from outrider.backends import cpu
from outrider.backends.cpu.weights import WeightStore
from outrider.backends.reference import ReferenceCache, ReferenceExecutor
from outrider.checkpoints import open_checkpoint
from outrider.models.assistant import record_assistant
from outrider.models.gemma import kv_layers, record_gemma, tap

SOURCE = Path(program.__file__).parent
TARGETS = [name for name in VARIANTS if not name.startswith("assistant")]
CLOSE = {"rtol": 2e-4, "atol": 2e-4}


def recorded(checkpoint, **options):
    return record_gemma(checkpoint.config, checkpoint.tensors, **options)


def random_tokens(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, VOCAB, count).astype(np.int32)


def reference_pass(executor, cache, tokens, parents=None, **given):
    """Logits of every row of one sequence."""
    rows = len(tokens)
    parents = np.arange(-1, rows - 1, dtype=np.int32) if parents is None else np.asarray(parents, np.int32)
    logits = np.empty((rows, executor.vocabulary), np.float32)
    every = np.arange(rows, dtype=np.int32)
    executor.run(np.asarray(tokens, np.int32), np.zeros(rows, np.int32), parents, every, [cache], logits, **given)
    return logits


@pytest.mark.parametrize("variant", TARGETS)
def test_the_core_computes_what_the_reference_computes(tiny, variant):
    """Beyond the window, and then a tree of drafts."""
    checkpoint = open_checkpoint(tiny(variant).gguf)
    reference = ReferenceExecutor(recorded(checkpoint), checkpoint.tensors)
    model = NativeModel(tiny(variant).gguf, kv_format="float32")
    cache, own = ReferenceCache(kv_layers(checkpoint.config)), model.cache()
    prompt = random_tokens(2 * WINDOW + 7)
    expected = reference_pass(reference, cache, prompt)
    found, hidden = model.run(own, prompt.tolist(), commit=range(len(prompt)))
    np.testing.assert_allclose(found, expected, **CLOSE)
    np.testing.assert_allclose(hidden, reference.read(model.forward.hidden, len(prompt)), **CLOSE)
    cache.commit(np.arange(len(prompt)))
    tree, parents = random_tokens(6, seed=1), [-1, 0, 0, 2, -1, 4]
    expected = reference_pass(reference, cache, tree, parents)
    found, _ = model.run(own, tree.tolist(), parents=parents)
    np.testing.assert_allclose(found, expected, **CLOSE)


@pytest.mark.parametrize("ordered", [False, True], ids=["whole vocabulary", "clusters"])
def test_drafters_too(tiny, tmp_path, ordered):
    target_path = tiny("gemma4-e2b").gguf
    target = open_checkpoint(target_path)
    text = tiny("gemma4-e2b").model.config.get_text_config()
    drafter = open_checkpoint(save_folder(make_assistant(text, ordered=ordered, seed=1), tmp_path / "drafter"))
    model, pool = NativeModel(target_path, kv_format="float32"), cpu.ThreadPool(2)
    stores = WeightStore(target.tensors, pool), WeightStore(drafter.tensors, pool)
    drafting = cpu_drafter(target.config, stores[0], drafter.config, stores[1], pool, max_rows=2, kv_format="float32")
    cache, own = ReferenceCache(kv_layers(target.config)), model.cache()
    reference = ReferenceExecutor(recorded(target), target.tensors)
    prompt = random_tokens(WINDOW + 9)
    reference_pass(reference, cache, prompt)
    cache.commit(np.arange(len(prompt)))
    model.run(own, prompt.tolist(), commit=range(len(prompt)))

    step = record_assistant(target.config, drafter.config, drafter.tensors)
    oracle = ReferenceExecutor(step, drafter.tensors, target_tensors=target.tensors)
    state = np.random.default_rng(2).normal(size=(1, target.config.hidden_size)).astype(np.float32)
    one, before = np.zeros(1, np.int32), np.full(1, -1, np.int32)
    outputs = one[:0] if ordered else one
    for executor, kept in ((oracle, cache), (drafting.program, own)):
        executor.write(drafting.hidden, state)
        logits = None if ordered else np.empty((1, VOCAB), np.float32)
        executor.run(np.array([7], np.int32), one, before, outputs, [kept], logits)
        executor.logits = logits if logits is not None else executor.read(drafting.logits, drafting.top_k)
    np.testing.assert_allclose(drafting.program.logits, oracle.logits, **CLOSE)
    np.testing.assert_allclose(drafting.program.read(drafting.hidden, 1), oracle.read(drafting.hidden, 1), **CLOSE)
    if ordered:
        assert np.array_equal(drafting.program.chosen(1, drafting.top_k), oracle.chosen(1, drafting.top_k))


@pytest.mark.parametrize("variant", ["gemma3", "gemma4-e2b"])
def test_taps_are_the_hidden_states_of_every_row(tiny, variant):
    """Against transformers, and without a change of the logits."""
    import torch

    made, checkpoint = tiny(variant), open_checkpoint(tiny(variant).gguf)
    layers, pool = (1, len(checkpoint.config.layers) - 2), cpu.ThreadPool(2)
    store = WeightStore(checkpoint.tensors, pool)
    forward = cpu_target(checkpoint.config, store, pool, max_rows=64, kv_format="float32", taps=layers)
    prompt = random_tokens(WINDOW + 5)
    cache = cpu.KvCache(cpu.KvPages(cpu.kv_shapes(kv_layers(checkpoint.config)), "float32"), 128, 64)
    rows, last = np.arange(len(prompt), dtype=np.int32), np.array([len(prompt) - 1], np.int32)
    logits = np.empty((1, VOCAB), np.float32)
    forward.program.run(prompt, np.zeros(len(prompt), np.int32), rows - 1, last, [cache], logits)
    with torch.no_grad():
        expected = made.model(torch.from_numpy(prompt[None].astype(np.int64)), output_hidden_states=True).hidden_states
    for layer in layers:
        found = forward.program.read(forward.taps[layer], len(prompt))
        np.testing.assert_allclose(found, expected[layer + 1][0].numpy(), rtol=1e-3, atol=1e-3)
    plain, _ = NativeModel(made.gguf, kv_format="float32").whole(prompt.tolist())
    assert np.array_equal(logits[0], plain[-1])
    with pytest.raises(ValueError, match="layer 99 cannot be tapped"):
        recorded(checkpoint, taps=(99,))


@pytest.mark.parametrize("variant", ["gemma3", "gemma4-dense", "gemma4-e2b"])
def test_a_row_may_carry_an_embedding(tiny, variant):
    checkpoint = open_checkpoint(tiny(variant).gguf)
    reference = ReferenceExecutor(recorded(checkpoint), checkpoint.tensors)
    model, width = NativeModel(tiny(variant).gguf, kv_format="float32"), checkpoint.config.hidden_size
    tokens, rows = random_tokens(9), np.arange(9, dtype=np.int32)
    which = np.array([-1, -1, 1, 0, -1, 1, -1, -1, -1], np.int32)
    given = np.random.default_rng(3).normal(size=(2, width)).astype(np.float32) * 5
    expected = reference_pass(
        reference, ReferenceCache(kv_layers(checkpoint.config)), tokens, embeddings=(which, given)
    )
    found = np.empty((9, VOCAB), np.float32)
    run = model.forward.program.run
    arguments = (tokens, np.zeros(9, np.int32), rows - 1, rows, [model.cache()], found)
    run(*arguments, (which, given))
    np.testing.assert_allclose(found, expected, **CLOSE)
    with_tokens = np.empty_like(found)
    run(*arguments[:4], [model.cache()], with_tokens)
    assert np.array_equal(with_tokens[:2], found[:2])  # rows before the first embedding
    assert not np.allclose(with_tokens[2:], found[2:])
    with pytest.raises(ValueError, match=f"embeddings must have width {width}, not {width + 1}"):
        run(*arguments, (which, np.zeros((2, width + 1), np.float32)))
    with pytest.raises(ValueError, match="row 2 names embedding 1 of 1"):
        run(*arguments, (which, given[:1]))


def test_an_embedding_row_equals_its_token_where_it_is_that_tokens_own(tiny):
    """gather scales what it takes from the table, so that is what the row carries."""
    checkpoint = open_checkpoint(tiny("gemma3").gguf)
    model, tokens = NativeModel(tiny("gemma3").gguf), random_tokens(6)
    table = checkpoint.tensors["embed_tokens.weight"].float32()
    given = table[tokens] * np.float32(checkpoint.config.hidden_size**0.5)
    rows, found = np.arange(6, dtype=np.int32), [np.empty((6, VOCAB), np.float32) for _ in range(2)]
    for logits, embeddings in zip(found, (None, (rows, given)), strict=True):
        ids = tokens if embeddings is None else np.zeros_like(tokens)
        model.forward.program.run(ids, np.zeros(6, np.int32), rows - 1, rows, [model.cache()], logits, embeddings)
    assert np.array_equal(*found)


def test_programs_are_plain_data(tiny):
    checkpoint = open_checkpoint(tiny("gemma4-moe").gguf)
    first, second = recorded(checkpoint), recorded(checkpoint)
    assert first == second
    assert first != recorded(checkpoint, taps=(0,))
    assert tap(0) in recorded(checkpoint, taps=(0,)).every_row
    assert all(dataclasses.is_dataclass(op) for op in first.ops)
    lines = str(first).splitlines()
    assert len(lines) == len(first.buffers) + len(first.kv_layers) + len(first.ops)
    assert any(line.split() == ["add", "src=y", "dst=x"] for line in lines)


def test_what_names_no_buffer_is_refused():
    record = program.Recorder([], ())
    record.buffer("x", 32)
    with pytest.raises(ValueError, match="Add names 'y', which is no buffer"):
        record(program.Add("y", "x"))


def imports_of(folder: str) -> set[str]:
    found = set()
    for path in (SOURCE / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom):
                found.add(str(node.module))
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
    return found


def test_a_second_executor_needs_nothing_of_the_first():
    assert not any(name.startswith("outrider.backends.cpu") for name in imports_of("backends/reference"))


def test_models_know_no_backend():
    assert not any(name.startswith("outrider.backends") for name in imports_of("models"))
