"""LoRA adapters are read as PEFT and llama.cpp read them, or refused with what to do."""

from __future__ import annotations

import contextlib
import json
import shutil
from copy import deepcopy

import gguf
import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from tiny_adapters import adapted, merged, save_adapter, save_gguf_adapter
from tiny_checkpoints import neutral_tensors

from outrider.checkpoints import open_checkpoint
from outrider.checkpoints.adapters import open_adapter
from outrider.errors import CheckpointError

VARIANTS = ("gemma3", "gemma4-e2b", "gemma4-k-eq-v", "gemma4-moe")


def config_of(tiny, variant):
    return open_checkpoint(tiny(variant).folder).config


def same_as_merged(adapter, tiny, variant, made) -> None:
    """Every matrix and nothing else: its product is what PEFT's merge adds."""
    before, after = neutral_tensors(tiny(variant).model), neutral_tensors(merged(made))
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    used = {name for name in changed if name in open_checkpoint(tiny(variant).folder).tensors}
    assert set(adapter.low_rank) == used
    assert adapter.left_out == len(changed - used)
    for name, part in adapter.low_rank.items():
        np.testing.assert_allclose(before[name] + part.product(), after[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_peft_folder_adds_what_peft_merges(tiny, tmp_path, variant):
    made = adapted(tiny(variant).model, seed=1)
    same_as_merged(open_adapter(save_adapter(made, tmp_path), config_of(tiny, variant)), tiny, variant, made)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_gguf_file_adds_the_same(tiny, tmp_path, variant):
    made = adapted(tiny(variant).model, seed=1)
    path = save_gguf_adapter(made, tmp_path / "adapter.gguf")
    same_as_merged(open_adapter(path, config_of(tiny, variant)), tiny, variant, made)


@pytest.mark.parametrize(
    "settings",
    [
        {"use_rslora": True, "r": 8},
        {"rank_pattern": {"q_proj": 2, r"layers\.1\.mlp\.up_proj": 7}, "r": 3},
        {"alpha_pattern": {"o_proj": 20, "layers.0.self_attn.q_proj": 1.5, r"model\.layers\.2\..*_proj": 3}},
        {"alpha_pattern": {"proj": 20, "self_attn.(q|k)_proj": 30}},
        {"lora_alpha": 0},
        {"target_modules": ["q_proj"]},
        {"target_modules": r".*layers\.[12]\.(self_attn|mlp)\..*_proj"},
        {"r": 40},
        {"init_lora_weights": "gaussian"},
    ],
    ids=str,
)
def test_scale_and_rank_are_those_of_peft(tiny, tmp_path, settings):
    made = adapted(tiny("gemma3").model, seed=2, **settings)
    adapter = open_adapter(save_adapter(made, tmp_path), config_of(tiny, "gemma3"))
    if settings.get("lora_alpha") == 0:
        assert all(not part.product().any() for part in adapter.low_rank.values())
        return
    # As PEFT reads the file, which has the patterns in another order than the config that was saved.
    again = PeftModel.from_pretrained(deepcopy(tiny("gemma3").model), tmp_path)
    same_as_merged(adapter, tiny, "gemma3", again)


def test_a_gguf_adapter_without_alpha_has_scale_1(tiny, tmp_path):
    made = adapted(tiny("gemma3").model)
    adapter = open_adapter(save_gguf_adapter(made, tmp_path / "a.gguf", alpha=0.0), config_of(tiny, "gemma3"))
    assert {part.scale for part in adapter.low_rank.values()} == {1.0}


@pytest.mark.parametrize("prefix", ["model.language_model.", "language_model.model.", "model."])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_prefix_and_type_is_read_and_encoders_are_left_out(tiny, tmp_path, prefix, dtype):
    folder = save_adapter(adapted(tiny("gemma3").model), tmp_path)
    stored = load_file(folder / "adapter_model.safetensors")
    old = "base_model.model.model."
    values = {name.replace(old, f"base_model.model.{prefix}"): t.to(dtype) for name, t in stored.items()}
    vision = "base_model.model.model.vision_tower.encoder.layers.0.self_attn.q_proj.linear"
    values |= {f"{vision}.lora_A.weight": torch.ones(4, 8), f"{vision}.lora_B.weight": torch.ones(8, 4)}
    save_file(values, folder / "adapter_model.safetensors")
    adapter = open_adapter(folder, config_of(tiny, "gemma3"))
    assert adapter.left_out == 1
    assert len(adapter.low_rank) == len(stored) // 2
    expected = stored[f"{old}layers.0.mlp.up_proj.lora_A.weight"].to(dtype).float().numpy()
    assert np.array_equal(adapter.low_rank["layers.0.mlp.up_proj.weight"].a.float32(), expected)


@pytest.fixture
def folder(tiny, tmp_path):
    return save_adapter(adapted(tiny("gemma3").model), tmp_path / "adapter")


def set_config(folder, **changes):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out"),
        ({"bias": "lora_only"}, "biases"),
        ({"lora_bias": True}, "lora_bias"),
        ({"layer_replication": [[0, 4], [2, 5]]}, "layer_replication"),
        ({"alora_invocation_tokens": [1, 2]}, "aLoRA"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"target_parameters": ["experts.gate_up_proj"]}, "target_parameters"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices"),
        ({"use_qalora": True}, "QALoRA"),
        ({"init_lora_weights": "pissa"}, "pissa"),
        ({"init_lora_weights": "olora"}, "olora"),
        ({"peft_type": "IA3"}, "IA3"),
        ({"peft_type": "VERA"}, "VERA"),
        ({"peft_type": None}, "peft_type"),
        ({"a_future_setting": 3}, "a_future_setting"),
        ({"lora_alpha": "eight"}, "lora_alpha"),
        ({"alpha_pattern": {"(a+)+": 3}}, "pattern"),
        ({"alpha_pattern": {"((": 3}}, "pattern"),
        ({"alpha_pattern": [1]}, "alpha_pattern"),
    ],
    ids=str,
)
def test_what_would_change_the_result_is_refused_by_name(tiny, folder, changes, message):
    set_config(folder, **changes)
    with pytest.raises(CheckpointError, match=message) as refused:
        open_adapter(folder, config_of(tiny, "gemma3"))
    assert refused.value.remedy


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("base_model.model.model.embed_tokens.lora_embedding_A", "adapts an embedding"),
        ("base_model.model.model.layers.0.mlp.up_proj.lora_magnitude_vector", "DoRA"),
        ("base_model.model.lm_head.weight", "no LoRA matrix"),
        ("base_model.model.lm_head.lora_A.weight", "adapts lm_head.weight"),
        ("base_model.model.model.embed_tokens.lora_A.weight", "adapts embed_tokens.weight"),
        ("base_model.model.model.layers.0.mlp.other.lora_A.weight", "does not have"),
        ("base_model.model.model.layers.99.mlp.up_proj.lora_A.weight", "does not have"),
        ("base_model.model.model.layers.0.input_layernorm.lora_A.weight", "does not have"),
        ("base_model.model.language_model.layers.0.mlp.up_proj.lora_A.weight", "twice"),
    ],
)
def test_what_is_no_projection_of_the_model_is_refused_by_name(tiny, folder, name, message):
    path = folder / "adapter_model.safetensors"
    save_file(load_file(path) | {name: torch.ones(4, 64)}, path)
    with pytest.raises(CheckpointError, match=message) as refused:
        open_adapter(folder, config_of(tiny, "gemma3"))
    assert refused.value.remedy


def test_an_adapter_of_another_model_is_refused(tiny, tmp_path, folder):
    with pytest.raises(CheckpointError, match="trained on another model"):
        open_adapter(folder, config_of(tiny, "gemma4-k-eq-v"))
    path = save_gguf_adapter(adapted(tiny("gemma3").model), tmp_path / "a.gguf")
    with pytest.raises(CheckpointError, match="architecture 'gemma3'"):
        open_adapter(path, config_of(tiny, "gemma4-dense"))


def test_half_an_adapter_is_refused(tiny, folder):
    path = folder / "adapter_model.safetensors"
    stored = load_file(path)
    stored.pop("base_model.model.model.layers.1.mlp.up_proj.lora_B.weight")
    save_file(stored, path)
    with pytest.raises(CheckpointError, match=r"one of the two matrices for layers\.1\.mlp\.up_proj\.weight"):
        open_adapter(folder, config_of(tiny, "gemma3"))


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_missing_file_is_named(tiny, folder, name):
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=f"has no {name}"):
        open_adapter(folder, config_of(tiny, "gemma3"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"general.type": "model"}, "is a model, not an adapter"),
        ({"adapter.type": "control"}, "type 'control'"),
        ({"adapter.alora.invocation_tokens": [1]}, "aLoRA"),
        ({"adapter.future": 1}, r"adapter\.future"),
        ({"tensor": "blk.0.attn_norm.weight"}, "whole tensor"),
        ({"tensor": "token_embd.weight.lora_a"}, r"adapts embed_tokens\.weight"),
        ({"tensor": "blk.0.ffn_gate_up_exps.weight.lora_a"}, r"adapts layers\.0\.experts\.gate_up_proj"),
    ],
    ids=str,
)
def test_other_gguf_files_are_refused_by_name(tiny, tmp_path, changes, message):
    keys = {"general.type": "adapter", "adapter.type": "lora", "adapter.lora.alpha": 8.0} | changes
    path = tmp_path / "a.gguf"
    writer = gguf.GGUFWriter(path, "gemma4")
    for key, value in keys.items():
        if key == "tensor":
            writer.add_tensor(value, np.ones((4, 64), np.float32))
        elif isinstance(value, list):
            writer.add_array(key, value)
        else:
            (writer.add_string if isinstance(value, str) else writer.add_float32)(key, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(CheckpointError, match=message) as refused:
        open_adapter(path, config_of(tiny, "gemma4-moe"))
    assert refused.value.remedy


def test_what_is_no_adapter_is_refused(tiny, tmp_path):
    config = config_of(tiny, "gemma3")
    (tmp_path / "notes.txt").write_text("hello")
    for source, message in (
        (tmp_path / "nowhere", "does not exist"),
        (tmp_path / "notes.txt", "not a kind of file"),
        (tiny("gemma3").folder, "has no adapter_config.json"),
        (tiny("gemma3").gguf, "is a model, not an adapter"),
    ):
        with pytest.raises(CheckpointError, match=message):
            open_adapter(source, config)


def test_an_adapter_is_no_model(tiny, tmp_path, folder):
    with pytest.raises(CheckpointError, match="LoRA adapter"):
        open_checkpoint(folder)
    with pytest.raises(CheckpointError, match="LoRA adapter"):
        open_checkpoint(save_gguf_adapter(adapted(tiny("gemma3").model), tmp_path / "a.gguf"))


def test_an_adapter_comes_from_the_hub(tiny, hub, folder):
    hub.repositories["someone/adapter"] = folder
    adapter = open_adapter("someone/adapter", config_of(tiny, "gemma3"))
    assert len(adapter.low_rank) == 7 * 7


@pytest.mark.parametrize("kind", ["config", "weights", "gguf"])
def test_mutated_files_give_nothing_worse_than_a_sentence(tiny, tmp_path, folder, kind):
    rng, config = np.random.default_rng(5), config_of(tiny, "gemma3")
    gguf_path = save_gguf_adapter(adapted(tiny("gemma3").model), tmp_path / "a.gguf")
    source = {"config": folder / "adapter_config.json", "weights": folder / "adapter_model.safetensors"}.get(
        kind, gguf_path
    )
    whole = source.read_bytes()
    header = min(len(whole), 20_000)
    for _ in range(150):
        data = bytearray(whole)
        for at in rng.integers(0, header, rng.integers(1, 4)):
            data[at] = rng.integers(0, 256)
        if rng.random() < 0.2:
            data = data[: rng.integers(0, len(data))]
        # A new file each time: one that is mapped must not change.
        target = tmp_path / "mutated"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(folder, target) if kind != "gguf" else target.mkdir()
        path = target / source.name
        path.unlink(missing_ok=True)
        path.write_bytes(data)
        with contextlib.suppress(CheckpointError):
            open_adapter(target if kind != "gguf" else path, config)
