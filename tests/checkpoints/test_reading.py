"""What is read equals what was written, from a GGUF file and from a folder alike."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import tiny_checkpoints as tiny_files
import torch
from gguf import GGMLQuantizationType as Type
from published_configs import PUBLISHED
from safetensors.numpy import load_file, save_file
from tiny_checkpoints import Tiny

from outrider import SamplingParams
from outrider.checkpoints import AssistantConfig, Checkpoint, ModelConfig, Tensor, TokenizerTables, open_checkpoint
from outrider.checkpoints.checkpoint import BLOCKS, SCALED_FORMATS
from outrider.checkpoints.gguf.file import TENSOR_TYPES, GGUFFile
from outrider.checkpoints.gguf.names import ROPE_FREQS, gguf_name, neutral_name
from outrider.checkpoints.hf.config import hf_config
from outrider.checkpoints.settings import Settings

ALL = [*tiny_files.VARIANTS, *tiny_files.ASSISTANTS]


def values(tensor: Tensor) -> np.ndarray[Any, Any]:
    """A tensor's weights as the gguf package dequantizes them, in its logical shape."""
    if tensor.format == "I32":
        return tensor.data.view("<i4").reshape(tensor.shape)
    rows = tensor.data.reshape(-1, tensor.row_bytes)
    return gguf.quants.dequantize(rows, Type[tensor.format]).reshape(tensor.shape)


def text_of(checkpoint: Checkpoint) -> ModelConfig:
    config = checkpoint.config
    return config.text if isinstance(config, AssistantConfig) else config


@pytest.mark.parametrize("variant", ALL)
def test_folder_and_gguf_read_alike(variant: str, tiny: Callable[[str], Tiny]) -> None:
    files = tiny(variant)
    folder, file = open_checkpoint(files.folder), open_checkpoint(str(files.gguf))
    written = tiny_files.neutral_tensors(files.model)
    assert folder.config == file.config
    assert list(folder.tensors) == list(file.tensors)
    assert set(folder.tensors) == set(written)
    for checkpoint in (folder, file):
        for name, tensor in checkpoint.tensors.items():
            assert tensor.name == name
            assert tensor.format == "I32" or np.array_equal(tensor.float32(), written[name])
            assert not tensor.data.flags.writeable
            np.testing.assert_array_equal(values(tensor), written[name], err_msg=name)


@pytest.mark.parametrize("kind", [Type.F16, Type.BF16, Type.Q8_0, Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1])
def test_every_format_keeps_its_bytes(kind: Type, tiny: Callable[[str], Tiny], tmp_path: Path) -> None:
    model = tiny("gemma4-moe").model
    checkpoint = open_checkpoint(tiny_files.save_gguf(model, tmp_path / "model.gguf", kind))
    for name, array in tiny_files.neutral_tensors(model).items():
        tensor = checkpoint.tensors[name]
        assert tensor.format == ("F32" if array.ndim == 1 else kind.name)
        assert tensor.shape == array.shape
        packed = array if array.ndim == 1 else gguf.quants.quantize(array, kind)
        assert tensor.data.tobytes() == packed.tobytes()


def test_the_formats_own_reader_agrees(tiny: Callable[[str], Tiny]) -> None:
    path = tiny("gemma4-moe").gguf
    ours, theirs = GGUFFile(path), gguf.GGUFReader(path)
    assert list(ours.table) == [tensor.name for tensor in theirs.tensors]
    for tensor in theirs.tensors:
        entry = ours.table[tensor.name]
        assert entry.format == tensor.tensor_type.name
        assert entry.shape == tuple(reversed(tensor.shape.tolist()))
        assert entry.data.tobytes() == tensor.data.tobytes()
    for key, value in ours.values.items():
        expected = theirs.fields[key].contents()
        if isinstance(value, np.ndarray):
            assert value.tolist() == expected, key
        elif isinstance(value, float):
            assert np.float32(value) == np.float32(expected), key
        else:
            assert value == expected, key


def test_blocks_are_those_of_the_format() -> None:
    blocks = {Type[name]: size for name, size in BLOCKS.items() if name not in SCALED_FORMATS}
    assert blocks.items() <= gguf.GGML_QUANT_SIZES.items()


def test_tensor_types_are_numbered_as_in_the_format() -> None:
    known = {name: number for number, name in enumerate(TENSOR_TYPES) if name != "-"}
    assert {Type[name].value: name for name in known} == {number: name for name, number in known.items()}
    assert set(BLOCKS) - set(SCALED_FORMATS) <= known.keys()


@pytest.mark.parametrize("variant", ALL)
def test_names_lead_back(variant: str, tiny: Callable[[str], Tiny]) -> None:
    names = [name for name in GGUFFile(tiny(variant).gguf).table if name != ROPE_FREQS]
    assert [gguf_name(neutral_name(name) or "") for name in names] == names


@pytest.mark.parametrize("version", [2, 3])
def test_both_versions_read_alike(version: int, tiny: Callable[[str], Tiny], tmp_path: Path) -> None:
    raw = bytearray(tiny("gemma3").gguf.read_bytes())
    raw[4:8] = version.to_bytes(4, "little")
    (tmp_path / "model.gguf").write_bytes(raw)
    assert open_checkpoint(tmp_path / "model.gguf").config == open_checkpoint(tiny("gemma3").gguf).config


@pytest.mark.parametrize("kind", [Type.Q4_K, Type.Q5_K, Type.Q6_K])
def test_k_quants_keep_their_bytes(kind: Type, tiny: Callable[[str], Tiny], tmp_path: Path) -> None:
    """The gguf package cannot quantize to these, so random blocks are written, as a tensor that nobody reads."""
    model = tiny("gemma4-dense").model
    rows, columns = 512, 256
    size = columns // 256 * gguf.GGML_QUANT_SIZES[kind][1]
    blocks = np.random.default_rng(0).integers(0, 256, (rows, size), dtype=np.uint8)
    path = tmp_path / "model.gguf"

    def edit(writer: gguf.GGUFWriter) -> None:
        writer.add_tensor("v.extra.weight", blocks, raw_dtype=kind)

    tiny_files.save_gguf(model, path, edit=edit)
    entry = GGUFFile(path).table["v.extra.weight"]
    assert (entry.format, entry.shape) == (kind.name, (rows, columns))
    assert entry.data.tobytes() == blocks.tobytes()
    open_checkpoint(path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("variant", ["gemma3", "gemma4-e2b"])
def test_half_precision_folders(variant: str, dtype: torch.dtype, tmp_path: Path) -> None:
    model = tiny_files.make_model(variant)
    written = {name: array.to(dtype).float().numpy() for name, array in model.state_dict().items()}
    checkpoint = open_checkpoint(tiny_files.save_folder(model, tmp_path, dtype=dtype))
    for name, tensor in checkpoint.tensors.items():
        norm = variant == "gemma3" and name.endswith("norm.weight")
        expected = written[f"model.{name}"] + np.float32(norm)
        np.testing.assert_array_equal(values(tensor), expected, err_msg=name)
        np.testing.assert_array_equal(tensor.float32(), expected, err_msg=name)
        assert tensor.format == ("F32" if norm else "F16" if dtype == torch.float16 else "BF16")


def test_sharded_folder_reads_like_one_file(tiny: Callable[[str], Tiny], tmp_path: Path) -> None:
    files = tiny("gemma4-moe")
    whole = open_checkpoint(files.folder)
    parts = open_checkpoint(tiny_files.save_folder(files.model, tmp_path, max_shard_size="200KB"))
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    assert parts.config == whole.config
    assert all(np.array_equal(parts.tensors[name].data, tensor.data) for name, tensor in whole.tensors.items())


@pytest.mark.parametrize("variant", ["gemma4-e2b", "gemma4-k-eq-v", "gemma4-moe", "gemma4-dense"])
def test_config_agrees_with_transformers(variant: str, tiny: Callable[[str], Tiny]) -> None:
    files = tiny(variant)
    config = text_of(open_checkpoint(files.gguf))
    for index, (layer, module) in enumerate(zip(config.layers, files.model.model.layers, strict=True)):
        attention = module.self_attn
        assert (layer.kind == "sliding") == attention.is_sliding
        assert layer.head_dim == attention.head_dim
        assert config.heads // layer.kv_heads == attention.num_key_value_groups
        assert (layer.kv_source != index) == attention.is_kv_shared_layer
        assert layer.mlp_width == module.mlp.intermediate_size
        assert layer.window == attention.sliding_window
        if layer.kv_source == index:
            assert layer.k_eq_v == (attention.v_proj is None)
        rotary = files.model.model.rotary_emb
        kind = "sliding_attention" if layer.kind == "sliding" else "full_attention"
        pairs = np.arange(layer.rope.dims // 2)
        turns = np.where(pairs < layer.rope.rotated // 2, layer.rope.theta ** (-2.0 * pairs / layer.rope.dims), 0.0)
        np.testing.assert_allclose(getattr(rotary, f"{kind}_inv_freq").numpy(), turns / layer.rope.factor, rtol=1e-5)


def test_kv_sharing_reads_the_last_unshared_layer_of_its_kind(tiny: Callable[[str], Tiny]) -> None:
    config = text_of(open_checkpoint(tiny("gemma4-e2b").folder))
    assert [layer.kv_source for layer in config.layers] == [0, 1, 2, 3, 4, 5, 5, 5, 5, 4]
    assert [layer.mlp_width for layer in config.layers] == [128] * 6 + [256] * 4


def test_drafter_has_no_kv_of_its_own(tiny: Callable[[str], Tiny]) -> None:
    checkpoint = open_checkpoint(tiny("assistant-centroids").gguf)
    config = checkpoint.config
    assert isinstance(config, AssistantConfig)
    assert {layer.kv_source for layer in config.text.layers} == {-1}
    assert (config.num_centroids, config.centroid_top_k, config.backbone_hidden_size) == (16, 4, 64)
    assert checkpoint.tensors["masked_embedding.token_ordering"].format == "I32"
    assert not any("k_proj" in name or "v_proj" in name for name in checkpoint.tensors)


def test_drafter_takes_its_targets_kv_shape(tiny: Callable[[str], Tiny], tmp_path: Path) -> None:
    target = tiny("gemma4-k-eq-v")
    drafter = tiny_files.make_assistant(target.model.config, ordered=False)
    reading = open_checkpoint(tiny_files.save_folder(drafter, tmp_path)).config
    assert isinstance(reading, AssistantConfig)
    shapes = {(layer.kind, layer.head_dim, layer.kv_heads) for layer in text_of(open_checkpoint(target.gguf)).layers}
    assert {(layer.kind, layer.head_dim, layer.kv_heads) for layer in reading.text.layers} == shapes


@pytest.mark.parametrize(
    ("pattern", "full"), [(None, [5]), (3, [2, 5]), ([1, 1, 1, 1, 0, 1, 0], [4, 6]), ([True] * 6 + [False], [6])]
)
def test_gemma3_patterns_as_converters_write_them(
    pattern: Any, full: list[int], tiny: Callable[[str], Tiny], tmp_path: Path
) -> None:
    def edit(writer: gguf.GGUFWriter) -> None:
        if isinstance(pattern, int):
            writer.add_uint32("gemma3.attention.sliding_window_pattern", pattern)
        elif pattern:
            writer.add_array("gemma3.attention.sliding_window_pattern", pattern)

    path = tiny_files.save_gguf(tiny("gemma3").model, tmp_path / "model.gguf", edit=edit)
    layers = text_of(open_checkpoint(path)).layers
    assert [index for index, layer in enumerate(layers) if layer.kind == "full"] == full


def test_tables_of_the_tokenizer(tiny: Callable[[str], Tiny]) -> None:
    tables = open_checkpoint(tiny("gemma3").gguf).tokenizer
    assert isinstance(tables, TokenizerTables)
    assert (tables.model, tables.bos_token_id, tables.eos_token_id, tables.unknown_token_id) == ("llama", 2, 1, 3)
    assert tables.tokens[:5] == ["<pad>", "<eos>", "<bos>", "<unk>", "<0x00>"]
    assert tables.tokens[-1] == "\u2581w251"
    assert tables.scores is not None
    assert tables.scores.tolist() == [float(-index) for index in range(512)]
    assert tables.token_types is not None
    assert tables.token_types[:5].tolist() == [3, 3, 3, 2, 6]
    assert (tables.add_bos, tables.add_space_prefix, tables.merges, tables.chat_template) == (True, False, None, None)


def test_one_bos_whatever_the_converter_wrote(tiny: Callable[[str], Tiny], tmp_path: Path) -> None:
    """The tokenizer.json of the same weights adds one too, and the chat template's is never added to."""
    from outrider.tokenizer import open_tokenizer

    raw = tiny("gemma3").gguf.read_bytes()
    key = b"tokenizer.ggml.add_bos_token" + (7).to_bytes(4, "little")
    assert raw.count(key + b"\1") == 1
    path = tmp_path / "model.gguf"
    path.write_bytes(raw.replace(key + b"\1", key + b"\0"))
    tables = open_checkpoint(path).tokenizer
    assert tables is not None
    assert open_tokenizer(tables).encode("w1")[:2].count(2) == 1


def test_the_output_head_may_be_stored_twice(tiny: Callable[[str], Tiny], tmp_path: Path) -> None:
    model = tiny("gemma4-dense").model
    embedding = tiny_files.neutral_tensors(model)["embed_tokens.weight"]

    def edit(writer: gguf.GGUFWriter) -> None:
        writer.add_tensor("output.weight", embedding)

    path = tiny_files.save_gguf(model, tmp_path / "model.gguf", edit=edit)
    assert list(open_checkpoint(path).tensors) == list(open_checkpoint(tiny("gemma4-dense").gguf).tensors)


@pytest.mark.parametrize("name", ["lm_head.weight", "language_model.lm_head.weight"])
def test_a_head_is_used_if_it_differs_from_the_embedding(
    name: str, tiny: Callable[[str], Tiny], copy_of: Callable[[Path], Path]
) -> None:
    folder, plain = copy_of(tiny("gemma3").folder), set(open_checkpoint(tiny("gemma3").folder).tensors)
    tensors = load_file(folder / "model.safetensors")
    tensors[name] = tensors["model.embed_tokens.weight"].copy()
    save_file(tensors, folder / "model.safetensors")
    assert set(open_checkpoint(folder).tensors) == plain
    tensors[name][-1, -1] += 1
    save_file(tensors, folder / "model.safetensors")
    found = open_checkpoint(folder).tensors
    assert set(found) == {*plain, "lm_head.weight"}
    np.testing.assert_array_equal(found["lm_head.weight"].float32(), tensors[name])


def test_a_gguf_file_needs_no_suffix(tiny: Callable[[str], Tiny], tmp_path: Path) -> None:
    path = tmp_path / f"sha256-{'0123' * 16}"
    path.write_bytes(tiny("gemma3").gguf.read_bytes())
    assert open_checkpoint(path).config == open_checkpoint(tiny("gemma3").gguf).config


def test_a_folder_reports_what_is_left_out(
    tiny: Callable[[str], Tiny], copy_of: Callable[[Path], Path], caplog: pytest.LogCaptureFixture
) -> None:
    folder = copy_of(tiny("gemma3").folder)
    caplog.set_level("INFO", logger="outrider.checkpoints")
    assert open_checkpoint(folder).left_out == 0
    assert not caplog.messages
    tensors = load_file(folder / "model.safetensors")
    tensors["vision_tower.x.weight"] = np.zeros((2, 2), np.float32)
    save_file(tensors, folder / "model.safetensors")
    assert open_checkpoint(folder).left_out == 1
    assert "only the text model is loaded; 1 tensors of its vision and audio encoders are left out" in caplog.text


@pytest.mark.parametrize(
    ("generation", "expected"),
    [
        ({}, {}),
        ({"top_k": 64, "top_p": 0.95, "do_sample": True}, {"temperature": 1.0, "top_k": 64, "top_p": 0.95}),
        ({"temperature": 0.7, "min_p": 0.1}, {"temperature": 0.7, "min_p": 0.1}),
        ({"do_sample": False, "top_k": 50}, {"temperature": 0.0, "top_k": 50}),
        ({"top_p": 1.5, "top_k": "many", "repetition_penalty": None}, {}),
    ],
)
def test_recommended_sampling(
    generation: dict[str, Any],
    expected: dict[str, float],
    tiny: Callable[[str], Tiny],
    copy_of: Callable[[Path], Path],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("WARNING", logger="outrider")
    folder = copy_of(tiny("gemma3").folder)
    (folder / "generation_config.json").write_text(json.dumps(generation))
    found = open_checkpoint(folder).sampling
    assert found == expected
    SamplingParams(**found)  # type: ignore[arg-type]
    assert ("top_p is 1.5, not a number from 1e-06 to 1" in caplog.text) == ("many" in generation.values())


def test_recommended_sampling_of_a_gguf_file(tiny: Callable[[str], Tiny], tmp_path: Path) -> None:
    def edit(writer: gguf.GGUFWriter) -> None:
        writer.add_int32("general.sampling.top_k", 64)
        writer.add_float32("general.sampling.top_p", 0.95)
        writer.add_float32("general.sampling.temp", 1.0)
        writer.add_float32("general.sampling.penalty_repeat", 1.1)

    path = tiny_files.save_gguf(tiny("gemma3").model, tmp_path / "model.gguf", edit=edit)
    found = open_checkpoint(path).sampling
    assert found == {"temperature": 1.0, "top_k": 64, "top_p": 0.95, "repetition_penalty": 1.1}
    SamplingParams(**found)  # type: ignore[arg-type]
    assert open_checkpoint(tiny("gemma3").gguf).sampling == {}


def test_tokenizer_of_a_folder_is_its_file(tiny: Callable[[str], Tiny], copy_of: Callable[[Path], Path]) -> None:
    assert open_checkpoint(tiny("gemma3").folder).tokenizer is None
    folder = copy_of(tiny("gemma3").folder)
    (folder / "tokenizer.json").write_text("{}")
    assert open_checkpoint(folder).tokenizer == folder / "tokenizer.json"


def test_end_tokens_are_those_of_every_config(tiny: Callable[[str], Tiny], copy_of: Callable[[Path], Path]) -> None:
    folder = copy_of(tiny("gemma3").folder)
    assert text_of(open_checkpoint(folder)).end_token_ids == (1,)
    (folder / "generation_config.json").write_text('{"eos_token_id": [1, 106]}')
    assert text_of(open_checkpoint(folder)).end_token_ids == (1, 106)


def test_published_configs_are_understood() -> None:
    """The settings of published checkpoints, older and newer spellings."""
    for name, (config, sizes) in PUBLISHED.items():
        found = hf_config(Settings(config, Path(name)), Settings({"eos_token_id": [1, 106]}, Path(name)))
        text = found.text if isinstance(found, AssistantConfig) else found
        full = [layer for layer in text.layers if layer.kind == "full"][-1]
        sliding = text.layers[0]
        assert (len(text.layers), full.head_dim, full.kv_heads, sliding.kv_heads, full.kv_source) == sizes, name
        assert 106 in text.end_token_ids
        assert full.rope.theta == 1e6
        assert sliding.rope.theta == 1e4
