"""Google's QAT mobile checkpoints: what their configs say of each module, and what is refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mobile_checkpoints import save_mobile
from safetensors.torch import load_file, save_file

from outrider.checkpoints import open_checkpoint
from outrider.checkpoints.hf.mobile_config import mobile_modules, quantization_settings
from outrider.checkpoints.traffic import weight_traffic
from outrider.errors import CheckpointError

Copy = Callable[[Path], Path]
GATE, EMBEDDING = "model.layers.3.mlp.gate_proj", "model.embed_tokens"

PUBLISHED = {
    "quant_method": "gemma",
    "num_bits": 4,
    "quantize_embeddings": True,
    "module_quant_configs": {
        r"language_model\.embed_tokens$": {"num_bits": 2},
        r"^lm_head$": {"num_bits": 2},
        r"language_model\.embed_tokens_per_layer$": {"num_bits": 4},
        r"language_model\.layers\.\d+\.per_layer_input_gate$": {"num_bits": 8},
        r"language_model\.layers\.\d+\.per_layer_projection$": {"num_bits": 8},
        r"language_model\.layers\.\d+\.self_attn\.": {"num_bits": 4},
        r"language_model\.layers\.(\d|1[0-4])\.mlp\.": {"num_bits": 4},
        r"language_model\.layers\.\d+\.mlp\.": {"num_bits": 2},
        "vision_tower": {"num_bits": 8},
    },
    "modules_to_not_convert": ["model.embed_vision", "relative_k_proj", "per_layer_model_projection"],
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    root = tmp_path_factory.mktemp("made")
    return {packed: save_mobile(root / str(packed), packed=packed) for packed in (False, True)}


def test_the_bits_of_the_published_patterns() -> None:
    module_of = mobile_modules(quantization_settings(PUBLISHED, Path("config.json")))
    layer = "model.language_model.layers"
    bits = {
        "lm_head": 2,
        f"{layer}.3.mlp.up_proj": 4,
        f"{layer}.14.mlp.up_proj": 4,
        f"{layer}.15.mlp.up_proj": 2,
        f"{layer}.34.mlp.down_proj": 2,
        f"{layer}.34.self_attn.o_proj": 4,
        f"{layer}.7.per_layer_input_gate": 8,
        "model.other": 4,
    }
    for name, wanted in bits.items():
        found = module_of(name, "Linear")
        assert found is not None
        assert found.bits == wanted, name
    assert module_of("model.language_model.per_layer_model_projection", "Linear") is None
    assert module_of("model.embed_vision.embedding_projection", "Linear") is None
    embedding = module_of("model.language_model.embed_tokens", "Embedding")
    assert embedding is not None
    assert embedding.bits == 2


def test_patterns_choose_as_transformers_chooses() -> None:
    """The first match in a name counts, then the first alternative."""
    patterns = {"mlp": {"num_bits": 8}, "layers": {"num_bits": 2}}
    module_of = mobile_modules(
        quantization_settings({**PUBLISHED, "module_quant_configs": patterns}, Path("config.json"))
    )
    found = module_of("model.layers.0.mlp.up_proj", "Linear")
    assert found is not None
    assert found.bits == 2


def test_bytes_of_a_pass(made: dict[bool, Path]) -> None:
    """Codes and a scale a row; the embedding is gathered from, as the head is another matrix."""
    checkpoint = open_checkpoint(made[False])
    traffic = weight_traffic(checkpoint.tensors, checkpoint.config)
    tables = [checkpoint.tensors[f"embed_tokens{name}.weight"].nbytes for name in ("", "_per_layer")]
    assert traffic.gathered == sum(tables) == 512 * (64 // 4 + 4) + 512 * (320 // 2 + 40)
    stored = sum(t.nbytes for t in checkpoint.tensors.values() if len(t.shape) == 2)
    assert traffic.per_token == stored - sum(tables)


def edited(folder: Path, **changes: Any) -> Path:
    """Keys of the quantization config set; None removes one."""
    config = json.loads((folder / "config.json").read_text())
    quantization = {**config["quantization_config"], **changes}
    config["quantization_config"] = {key: value for key, value in quantization.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def with_tensors(folder: Path, **changes: torch.Tensor | None) -> Path:
    """Tensors set; None removes one."""
    tensors = {**load_file(folder / "model.safetensors"), **changes}
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    return folder


def refused(folder: Path, *parts: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(folder)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"num_bits": 3}, ["3 bits"]),
        ({"rqv2": True}, ["rqv2", "not understood"]),
        ({"module_quant_configs": {"mlp": {"num_bits": 5}}}, ["5 bits"]),
        ({"module_quant_configs": {"mlp": {"num_bits": 4, "group": 8}}}, ["mlp: group", "not understood"]),
        ({"module_quant_configs": {"m(lp": {"num_bits": 4}}}, ["pattern", "m(lp"]),
        ({"module_quant_configs": [4]}, ["module_quant_configs"]),
        ({"modules_to_not_convert": None}, ["lacks", "modules_to_not_convert"]),
        ({"modules_to_not_convert": ["per_layer_model_projection", "lm_head"]}, ["lm_head", "not quantized"]),
        ({"modules_to_not_convert": []}, ["per_layer_model_projection.weight as F32", "is quantized"]),
        ({"quantize_embeddings": False}, ["embed_tokens", "not quantized"]),
    ],
)
def test_configs_of_transformers_that_are_refused(
    made: dict[bool, Path], copy_of: Copy, changes: dict[str, Any], parts: list[str]
) -> None:
    refused(edited(copy_of(made[False]), **changes), *parts)


@pytest.mark.parametrize(
    ("section", "changes", "parts"),
    [
        ("weights", {"num_bits": 3}, ["3 bits"]),
        ("weights", {"symmetric": False}, ["symmetric"]),
        ("weights", {"type": "float"}, ["symmetric integers"]),
        ("weights", {"strategy": "block"}, ["strategy"]),
        ("weights", {"wavelets": 2}, ["wavelets"]),
        ("input_activations", {"num_bits": 4}, ["one static scale"]),
        ("input_activations", {"dynamic": True}, ["one static scale"]),
        ("output_activations", {"strategy": "token"}, ["one static scale"]),
        ("output_activations", {"wavelets": 2}, ["wavelets"]),
    ],
)
def test_groups_that_are_refused(
    made: dict[bool, Path], copy_of: Copy, section: str, changes: dict[str, Any], parts: list[str]
) -> None:
    folder = copy_of(made[True])
    groups = json.loads((folder / "config.json").read_text())["quantization_config"]["config_groups"]
    groups["group_6"][section] |= changes
    refused(edited(folder, config_groups=groups), *parts)


@pytest.mark.parametrize(
    ("name", "value", "parts"),
    [
        (f"{GATE}.weight", torch.zeros(128, 64), ["gate_proj as F32", "4 bits"]),
        (f"{GATE}.weight", torch.zeros(128, 64, dtype=torch.int8), ["gate_proj as I8", "4 bits"]),
        (f"{GATE}.weight", torch.zeros(128, 16, dtype=torch.uint8), ["gate_proj.weight in the shape (128, 32)"]),
        (f"{GATE}.weight", None, ["gate_proj with none of weight"]),
        (f"{GATE}.weight_scale", None, ["gate_proj with none of weight_scale"]),
        (f"{GATE}.weight_scale", torch.ones(128, 3), ["scales layers.3.mlp.gate_proj"]),
        (f"{GATE}.weight_scale", torch.full((128, 1), torch.inf), ["not finite"]),
        (f"{GATE}.weight_packed", torch.zeros(128, 8, dtype=torch.int32), ["weight and weight_packed"]),
        (f"{GATE}.input_activation_scale", torch.tensor(-1.0), ["gate_proj.input_scale of -1"]),
        (f"{GATE}.input_activation_scale", torch.tensor(torch.nan), ["gate_proj.input_scale of nan"]),
        (f"{GATE}.output_activation_scale", torch.ones(2), ["output_activation_scale", "one number"]),
        (f"{EMBEDDING}.output_activation_scale", torch.tensor(1.0), ["embed_tokens.output_scale", "no part of"]),
        ("model.norm.input_activation_scale", torch.tensor(1.0), ["norm"]),
        (f"{GATE}.zero_point", torch.ones(128), ["gate_proj.zero_point", "no part of"]),
    ],
)
def test_tensors_that_are_refused(
    made: dict[bool, Path], copy_of: Copy, name: str, value: torch.Tensor | None, parts: list[str]
) -> None:
    refused(with_tensors(copy_of(made[False]), **{name: value}), *parts)


@pytest.mark.parametrize(
    ("name", "value", "parts"),
    [
        (f"{GATE}.input_scale", None, ["lacks layers.3.mlp.gate_proj.input_scale"]),
        (f"{GATE}.weight_shape", torch.tensor([128, 32]), ["gate_proj", "weight_shape is (128, 32)"]),
        (f"{GATE}.weight_shape", torch.ones(2), ["weight_shape", "two integers"]),
        (f"{EMBEDDING}.input_scale", torch.ones(1), ["embed_tokens.input_scale", "does not call for"]),
    ],
)
def test_packed_tensors_that_are_refused(
    made: dict[bool, Path], copy_of: Copy, name: str, value: torch.Tensor | None, parts: list[str]
) -> None:
    refused(with_tensors(copy_of(made[True]), **{name: value}), *parts)


def test_a_head_with_the_embeddings_codes_and_other_scales_is_its_own(made: dict[bool, Path], copy_of: Copy) -> None:
    folder = copy_of(made[False])
    tensors = load_file(folder / "model.safetensors")
    with_tensors(folder, **{"lm_head.weight": tensors[f"{EMBEDDING}.embedding_quantized"]})
    assert "lm_head.weight" in open_checkpoint(folder).tensors
    with_tensors(folder, **{"lm_head.weight_scale": tensors[f"{EMBEDDING}.embedding_scale"]})
    tied = open_checkpoint(folder).tensors
    assert "lm_head.weight" not in tied
    assert {"lm_head.input_scale", "lm_head.output_scale"} <= tied.keys()


def test_scales_in_bfloat16_are_read(made: dict[bool, Path], copy_of: Copy) -> None:
    folder = copy_of(made[True])
    scales = load_file(folder / "model.safetensors")[f"{GATE}.weight_scale"].to(torch.bfloat16)
    with_tensors(folder, **{f"{GATE}.weight_scale": scales})
    found = open_checkpoint(folder).tensors["layers.3.mlp.gate_proj.weight"].scales
    assert found is not None
    assert np.array_equal(found.scale, scales.float().numpy())
