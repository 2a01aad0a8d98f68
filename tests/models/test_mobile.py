"""Google's QAT mobile checkpoints: read as transformers reads them, and computed with their static scales."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from mobile_checkpoints import reference_of, save_mobile
from native_model import NativeModel
from tiny_checkpoints import VOCAB, make_assistant, make_model, save_folder
from word_tokenizer import save_tokenizer

from outrider import LLM, SamplingParams
from outrider.backends import cpu
from outrider.backends.reference import ReferenceCache, ReferenceExecutor
from outrider.checkpoints import open_checkpoint
from outrider.models.gemma import kv_layers, record_gemma

TOKENS = [int(token) for token in np.random.default_rng(0).integers(3, VOCAB, 40)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_mobile(tmp_path_factory.mktemp("mobile") / "model")


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One whose activations all have static scales."""
    return save_mobile(tmp_path_factory.mktemp("calibrated") / "model", uncalibrated="-")


def texts(count: int) -> list[list[int]]:
    """Short, since where additions in another order move a value to the next step, every later row differs too."""
    return np.random.default_rng(1).integers(3, VOCAB, (count, 3)).tolist()


def expected_of(folder: Path, given: list[list[int]]) -> np.ndarray:
    """The logits of transformers, (texts, tokens, vocabulary)."""
    with torch.no_grad():
        return reference_of(folder)(torch.tensor(given)).logits.numpy()


def errors(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """(texts,) largest difference relative to the largest logit."""
    return np.abs(found - expected).max(axis=(1, 2)) / np.abs(expected).max()


def test_weights_are_those_of_transformers(folder: Path) -> None:
    model, tensors = reference_of(folder), open_checkpoint(folder).tensors
    compared = 0
    for name, module in model.named_modules():
        if not hasattr(module, "num_bits"):
            continue
        embedding = hasattr(module, "embedding_quantized")
        values = (module.weight if embedding else module._dequantize_weights()).detach().numpy()
        tensor = tensors[f"{name.removeprefix('model.')}.weight"]
        assert tensor.scales is not None
        assert tensor.format == f"I{module.num_bits}"
        found = cpu.dequantize(tensor.format, *tensor.shape, tensor.data, tensor.scales.scale)
        assert np.array_equal(found, values)
        assert np.array_equal(tensor.float32(), values)
        compared += 1
    assert compared > 80


def test_the_program_computes_what_transformers_computes(folder: Path) -> None:
    """In float32, with every rounding of activations."""
    checkpoint, given, found = open_checkpoint(folder), texts(20), []
    executor = ReferenceExecutor(record_gemma(checkpoint.config, checkpoint.tensors), checkpoint.tensors)
    rows = np.arange(len(given[0]), dtype=np.int32)
    for tokens in given:
        found.append(np.empty((len(tokens), VOCAB), np.float32))
        cache = ReferenceCache(kv_layers(checkpoint.config))
        executor.run(np.array(tokens, np.int32), np.zeros_like(rows), rows - 1, rows, [cache], found[-1])
    expected = expected_of(folder, given)
    close = errors(np.array(found), expected) < 1e-5
    assert close.mean() >= 0.8
    assert np.array_equal(np.array(found)[close].argmax(axis=2), expected[close].argmax(axis=2))


def test_the_core_computes_what_transformers_computes(calibrated: Path) -> None:
    """The codes that are multiplied are those of transformers, so this is exact too, unlike 8-bit activations."""
    given, model = texts(20), NativeModel(calibrated, kv_format="float32")
    found, expected = np.array([model.whole(tokens)[0] for tokens in given]), expected_of(calibrated, given)
    close = errors(found, expected) < 1e-5
    assert close.mean() >= 0.8
    assert np.array_equal(found[close].argmax(axis=2), expected[close].argmax(axis=2))


def test_a_scale_of_0_leaves_a_layer_to_8_bit_activations(folder: Path) -> None:
    given, model = texts(20), NativeModel(folder, kv_format="float32")
    found = np.array([model.whole(tokens)[0] for tokens in given])
    apart = errors(found, expected_of(folder, given))
    assert 1e-4 < np.median(apart) < 0.1


def test_both_variants_are_one_model(folder: Path, tmp_path: Path) -> None:
    packed = save_mobile(tmp_path / "model", packed=True)
    ours, theirs = open_checkpoint(folder).tensors, open_checkpoint(packed).tensors
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert tensor.format == theirs[name].format
        assert np.array_equal(tensor.float32(), theirs[name].float32()), name
    one, other = (NativeModel(path).whole(TOKENS)[0] for path in (folder, packed))
    assert np.array_equal(one, other)


def test_all_instruction_sets_give_the_same_bits(folder: Path) -> None:
    model, before, results = NativeModel(folder), cpu.instruction_set(), []
    for name in cpu.instruction_sets():
        cpu.choose_instruction_set(name)
        results.append(model.whole(TOKENS, chunk=7))
    cpu.choose_instruction_set(before)
    for logits, hidden in results[1:]:
        assert np.array_equal(logits, results[0][0])
        assert np.array_equal(hidden, results[0][1])


def test_drafting_changes_nothing(folder: Path, tmp_path: Path) -> None:
    save_tokenizer(folder)
    assistant = make_assistant(make_model("gemma4-e2b").config.get_text_config(), ordered=True)
    llm = LLM(folder, drafter=save_folder(assistant, tmp_path / "drafter"), context=256, threads=2)
    for temperature in (0.0, 0.9):
        plain, drafted = (
            llm.generate([TOKENS], SamplingParams(max_tokens=48, temperature=temperature, seed=5, draft=draft))[0]
            for draft in ("off", 4)
        )
        assert plain.token_ids == drafted.token_ids
        assert drafted.stats.drafted > 0
