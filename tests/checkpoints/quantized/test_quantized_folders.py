"""Folders in each scheme, from their files to logits, and to tokens with drafts and without."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from lossless.stand_in import StandInDrafter
from native_model import NativeModel, dequantized_tensors
from quantized_folders import change_config, quantize_folder, reference_logits
from quantizers import CASES
from safetensors.torch import load_file, save_file
from tiny_checkpoints import VOCAB, Tiny
from word_tokenizer import save_tokenizer

from outrider import LLM, SamplingParams
from outrider.checkpoints import open_checkpoint

SCHEMES = [
    "ct-pack-4-group",
    "ct-pack-4-zeros",
    "ct-pack-2-channel",
    "ct-pack-act-order",
    "ct-int8-channel",
    "ct-float8-channel",
    "ct-nvfp4",
    "ct-mxfp4",
    "fp8-128",
    "modelopt-nvfp4",
    "modelopt-fp8",
    "awq",
    "gptq-3",
    "gptq-4",
    "gptq-4-act-order",
    "auto-round-gptq",
]
PROMPT = [3, 9, 200, 4, 77, 9, 200, 4, 300, 9, 200, 4, 5]


@pytest.fixture
def folder(tiny: Callable[[str], Tiny], copy_of: Callable[[Path], Path]) -> Callable[[str], Path]:
    return lambda variant: copy_of(tiny(variant).folder)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_folder_computes_what_its_decoded_weights_do(scheme: str, folder: Callable[[str], Path]) -> None:
    path = folder("gemma4-e2b")
    values = quantize_folder(path, CASES[scheme])
    reference = reference_logits(path, values, PROMPT)
    ours, _ = NativeModel(path, dequantized=True, kv_format="float32").whole(PROMPT)
    np.testing.assert_allclose(ours, reference, atol=3e-4)
    # As it runs, with activations in 8 bits, whose error ten random layers amplify: 0.5 to 25 %, 140 % if nothing fits.
    running, _ = NativeModel(path).whole(PROMPT)
    assert np.linalg.norm(running - reference) < 0.4 * np.linalg.norm(reference)


@pytest.mark.parametrize("variant", ["gemma3", "gemma4-moe"])
@pytest.mark.parametrize("scheme", ["ct-pack-4-group", "ct-mxfp4", "modelopt-nvfp4", "fp8-128", "awq"])
def test_other_variants_and_experts_stored_one_by_one(scheme: str, variant: str, folder: Callable[[str], Path]) -> None:
    path = folder(variant)
    values = quantize_folder(path, CASES[scheme])
    ours, _ = NativeModel(path, dequantized=True, kv_format="float32").whole(PROMPT)
    np.testing.assert_allclose(ours, reference_logits(path, values, PROMPT), atol=3e-4)


@pytest.mark.parametrize(
    "scheme",
    ["ct-pack-2-channel", "ct-pack-4-zeros", "ct-int8-channel", "ct-nvfp4", "ct-mxfp4", "fp8-128", "gptq-4-act-order"],
)
def test_drafts_change_nothing(scheme: str, folder: Callable[[str], Path]) -> None:
    path = folder("gemma4-e2b")
    quantize_folder(path, CASES[scheme])
    save_tokenizer(path)
    llm = LLM(path, threads=2, context=256)
    params = {"max_tokens": 24, "seed": 3, "ignore_end": True}
    for temperature in (0.0, 0.9):
        plain = llm.generate([PROMPT], SamplingParams(**params, temperature=temperature, draft="off"))[0]
        stand_in = StandInDrafter(random.Random(1), VOCAB, right=0.7)
        stand_in.know(PROMPT, plain.token_ids)
        llm.parts.engine.planner.drafters = [stand_in]
        drafted = llm.generate([PROMPT], SamplingParams(**params, temperature=temperature, draft=5))[0]
        assert drafted.token_ids == plain.token_ids
        assert drafted.stats.accepted > 5


def test_experts_with_a_factor_each_stay_4_bit(folder: Callable[[str], Path]) -> None:
    """As modelopt writes them: gate and up projection of an expert have the same factor."""
    path = folder("gemma4-moe")
    values = quantize_folder(path, CASES["modelopt-nvfp4"])
    stored = load_file(path / "model.safetensors")
    name = "layers.2.experts.gate_up_proj"
    wanted = values[f"model.{name}"].numpy().copy()
    for expert in range(8):
        of_gate, of_up = (f"model.layers.2.experts.{expert}.{kind}_proj.weight_scale_2" for kind in ("gate", "up"))
        wanted[expert, 32:] *= float(stored[of_gate] / stored[of_up])
        stored[of_up] = stored[of_gate].clone()
    save_file(stored, path / "model.safetensors")
    tensor = open_checkpoint(path).tensors[name]
    assert tensor.format == "NVFP4"
    assert np.shape(tensor.factor) == (8, 1, 1)
    np.testing.assert_allclose(dequantized_tensors({name: tensor})[name].float32(), wanted, rtol=1e-6)


def test_a_config_in_a_file_of_its_own(folder: Callable[[str], Path]) -> None:
    """Older tools and modelopt write their config beside config.json."""
    path = folder("gemma3")
    values = quantize_folder(path, CASES["modelopt-nvfp4"])
    change_config(path, None)
    content = {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "NVFP4", "group_size": 16}}
    (path / "hf_quant_config.json").write_text(json.dumps(content))
    name, checkpoint = "layers.0.mlp.up_proj.weight", open_checkpoint(path)
    assert path / "hf_quant_config.json" in checkpoint.files
    found = dequantized_tensors({name: checkpoint.tensors[name]})[name].float32()
    np.testing.assert_allclose(found, values[f"model.{name}"].numpy(), rtol=3e-7)


def test_scales_of_an_8_bit_cache_are_left_out(folder: Callable[[str], Path]) -> None:
    path = folder("gemma3")
    quantize_folder(path, CASES["fp8-128"])
    stored = load_file(path / "model.safetensors")
    some = stored["model.layers.0.mlp.up_proj.weight_scale_inv"].reshape(-1)[:1]
    stored |= {f"model.layers.0.self_attn.{name}": some.clone() for name in ("k_scale", "v_scale", "k_proj.k_scale")}
    save_file(stored, path / "model.safetensors")
    assert open_checkpoint(path).tensors
