"""Whole checkpoints in each of the block formats that need rows of 256 or codebooks."""

from __future__ import annotations

import numpy as np
import pytest
from block_formats import NEW, save_blocks, wide_model
from native_model import NativeModel
from tiny_checkpoints import VOCAB

from outrider import LLM, SamplingParams
from outrider.backends import cpu
from outrider.checkpoints import open_checkpoint


@pytest.fixture(scope="module")
def path_of(tmp_path_factory):
    """Format -> a checkpoint of E2B's kind in it."""
    root = tmp_path_factory.mktemp("blocks")
    model = wide_model("gemma4-e2b")

    def get(kind):
        path = root / f"{kind}.gguf"
        return path if path.exists() else save_blocks(model, path, kind)

    return get


def relative(found, expected):
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.fixture
def instruction_set():
    before = cpu.instruction_set()
    yield cpu.choose_instruction_set
    cpu.choose_instruction_set(before)


@pytest.mark.parametrize("kind", NEW)
def test_a_format_loses_only_to_int8_activations(path_of, kind):
    exact = NativeModel(path_of(kind), kv_format="float32", dequantized=True)
    found = NativeModel(path_of(kind))
    errors = [relative(found.whole([token])[0], exact.whole([token])[0]) for token in range(3, 15)]
    assert 0 < np.median(errors) < 0.1


@pytest.mark.parametrize("kind", NEW)
def test_all_instruction_sets_give_the_same_bits(path_of, instruction_set, kind):
    model = NativeModel(path_of(kind))
    tokens = [int(token) for token in np.random.default_rng(0).integers(0, VOCAB, 45)]
    results = {}
    for name in cpu.instruction_sets():
        instruction_set(name)
        results[name] = model.whole(tokens, chunk=19)
    for logits, hidden in results.values():
        assert np.array_equal(logits, results["portable"][0])
        assert np.array_equal(hidden, results["portable"][1])


@pytest.mark.parametrize("kind", NEW)
def test_drafting_changes_nothing(path_of, word_tokenizer, kind):
    llm = LLM(path_of(kind), threads=2, context=256)
    word_tokenizer(llm)
    drafted = 0
    for seed in range(6):
        motif = [int(token) for token in np.random.default_rng(seed).integers(3, VOCAB, 6)]
        answers = []
        for draft in ("off", "auto", 5):
            params = SamplingParams(max_tokens=20, temperature=seed % 3 * 0.4, seed=seed, draft=draft, ignore_end=True)
            out = llm.generate([motif * 4], params)[0]
            answers.append(out.token_ids)
            drafted += out.stats.drafted
        assert answers[0] == answers[1] == answers[2]
    assert drafted


@pytest.mark.parametrize("variant", ["gemma4-e2b", "gemma4-moe"])
def test_a_factor_multiplies_the_weights(tmp_path, variant):
    """NVFP4's second scale: of a matrix, or of each expert."""
    path = save_blocks(wide_model(variant), tmp_path / "model.gguf", "NVFP4", factors=True)
    tensors = open_checkpoint(path).tensors
    factors = [np.ravel(tensor.factor) for tensor in tensors.values() if tensor.format == "NVFP4"]
    assert min(map(np.min, factors)) < 0.7
    assert max(map(np.max, factors)) > 1.6
    assert variant != "gemma4-moe" or max(map(len, factors)) == 8
    exact, found = NativeModel(path, kv_format="float32", dequantized=True), NativeModel(path)
    errors = [relative(found.whole([token])[0], exact.whole([token])[0]) for token in range(3, 15)]
    assert 0 < np.median(errors) < 0.1
