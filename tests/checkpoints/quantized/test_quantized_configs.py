"""Quantization configs that are not read are refused by name, and parts that contradict their config too."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from quantized_folders import change_config, quantize_folder
from quantizers import CASES, gptq_case, packed_case
from safetensors.torch import load_file, save_file
from tiny_checkpoints import Tiny
from transformers.utils.quantization_config import QuantizationMethod

from outrider.checkpoints import open_checkpoint
from outrider.checkpoints.hf.quantized.methods import METHODS, scheme_of
from outrider.checkpoints.hf.quantized.parts import Module
from outrider.errors import CheckpointError

MATRIX = "model.layers.0.mlp.up_proj"
UP = Module("layers.0.mlp.up_proj", MATRIX)
DOWN = Module("layers.3.mlp.down_proj", "model.language_model.layers.3.mlp.down_proj")


@pytest.fixture
def folder(tiny: Callable[[str], Tiny], copy_of: Callable[[Path], Path]) -> Path:
    return copy_of(tiny("gemma3").folder)


@pytest.fixture(scope="module")
def awq(tiny: Callable[[str], Tiny], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A quantized folder. To be read only."""
    folder = tmp_path_factory.mktemp("awq") / "model"
    shutil.copytree(tiny("gemma3").folder, folder)
    quantize_folder(folder, CASES["awq"])
    return folder


def refused(folder: Path, *parts: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(folder)
    message = str(caught.value)
    assert str(folder) in message
    assert caught.value.remedy
    assert "\n" not in message
    for part in parts:
        assert part in message


def config_of(name: str, **changes: Any) -> dict[str, Any]:
    return deepcopy(CASES[name].config) | changes


def of_group(name: str, **changes: Any) -> dict[str, Any]:
    config = config_of(name)
    config["config_groups"]["group_0"] |= changes
    return config


def of_weights(name: str, **changes: Any) -> dict[str, Any]:
    config = config_of(name)
    config["config_groups"]["group_0"]["weights"] |= changes
    return config


OTHERS = sorted({method.value for method in QuantizationMethod} - METHODS.keys() - {"gemma"})


@pytest.mark.parametrize("method", [*OTHERS, "bitsandbytes_4bit", "exl3", 4, None])
def test_other_methods_are_refused_by_name(method: Any, folder: Path) -> None:
    change_config(folder, {"quant_method": method, "bits": 4})
    refused(folder, repr(method), "GGUF")


def test_bitsandbytes_and_the_rest_are_among_them() -> None:
    assert {"bitsandbytes", "hqq", "aqlm", "quanto", "eetq", "torchao", "higgs"} <= set(OTHERS)


def unread() -> Iterator[tuple[dict[str, Any], str]]:
    ct = "ct-pack-4-group"
    yield config_of(ct, format="marlin-24"), "marlin-24"
    yield config_of(ct, format="mxfp8-quantized"), "mxfp8-quantized"
    yield config_of(ct, sparsity_config={"format": "sparse-24-bitmask"}), "sparsity"
    yield config_of(ct, transform_config={"config_groups": {"u": {"type": "hadamard"}}}), "transform"
    yield config_of(ct, something="new"), "something"
    yield config_of(ct, config_groups={"W4A16": ["Linear"]}), "config_groups.W4A16"
    yield config_of(ct, ignore=["re:("]), "pattern"
    yield of_group(ct, something="new"), "something"
    yield of_weights(ct, type="float"), "'float'"
    yield of_weights(ct, num_bits=16), "num_bits"
    yield of_weights(ct, group_size=-7), "group_size"
    yield of_weights(ct, group_size=0), "groups of 0"
    yield of_weights(ct, strategy="attn_head"), "attn_head"
    yield of_weights(ct, actorder="other"), "'other'"
    yield of_weights(ct, new=1), "new"
    yield of_weights("ct-float8-block", block_structure=[0, 1]), "blocks of"
    yield of_weights("ct-float8-block", block_structure="x"), "blocks of"
    yield config_of("fp8-128", scale_fmt="ue8m0"), "ue8m0"
    yield config_of("fp8-128", weight_block_size=[128]), "weight_block_size"
    yield config_of("fp8-128", weight_block_size=[0, 128]), "weight_block_size"
    yield config_of("fp8-128", modules_to_convert=["embed_tokens"]), "modules_to_convert"
    yield config_of("modelopt-nvfp4", quant_algo="NVFP4_AWQ"), "NVFP4_AWQ"
    yield config_of("modelopt-nvfp4", group_size=32), "groups of 32"
    yield config_of("modelopt-nvfp4", rotate=True), "rotate"
    yield config_of("modelopt-nvfp4", quant_algo="MIXED_PRECISION"), "quantized_layers"
    yield config_of("awq", version="gemv"), "'gemv'"
    yield config_of("awq", version="llm-awq"), "'llm-awq'"
    yield config_of("awq", bits=3), "3 bits"
    yield config_of("awq", group_size=0), "group size of 0"
    yield config_of("gptq-4", checkpoint_format="marlin"), "'marlin'"
    yield config_of("gptq-4", is_marlin_format=True), "layout"
    yield config_of("gptq-4", bits=5), "5 bits"
    yield config_of("gptq-4", group_size=-2), "group_size"
    yield config_of("gptq-4", rotation="hadamard"), "rotation"
    yield config_of("gptq-4", dynamic={"+:.*up.*": {"bits": 6}}), "6 bits"
    yield config_of("gptq-4", dynamic={"(": {"bits": 8}}), "pattern"
    yield config_of("auto-round-gptq", packing_format="auto_round:mx_fp4"), "mx_fp4"
    yield config_of("auto-round-gptq", data_type="mx_fp"), "mx_fp"
    yield config_of("auto-round-gptq", act_bits=8), "activations"


@pytest.mark.parametrize(("config", "part"), unread(), ids=[part for _, part in unread()])
def test_settings_that_are_not_read_are_refused(
    config: dict[str, Any], part: str, awq: Path, copy_of: Callable[[Path], Path]
) -> None:
    folder = copy_of(awq)
    change_config(folder, config)
    refused(folder, part)


def test_a_matrix_that_its_config_leaves_out_but_that_is_quantized(folder: Path) -> None:
    for name, key in (
        ("ct-pack-4-group", "ignore"),
        ("fp8-128", "modules_to_not_convert"),
        ("awq", "modules_to_not_convert"),
        ("modelopt-fp8", "ignore"),
    ):
        quantize_folder(folder, CASES[name])
        change_config(folder, config_of(name, **{key: ["model.layers.0.mlp.up_proj"]}))
        refused(folder, "layers.0.mlp.up_proj", "not quantized")
        break_back(folder)


def break_back(folder: Path) -> None:
    """Makes all linear layers plain again, so that they can be quantized otherwise."""
    stored = load_file(folder / "model.safetensors")
    model = transformers.AutoModelForCausalLM.from_config(config_without_quantization(folder))
    kept = {name: value for name, value in stored.items() if not name.startswith("model.layers.")}
    whole = {name: value.clone() for name, value in model.state_dict().items() if name != "lm_head.weight"}
    save_file(whole | kept, folder / "model.safetensors")


def config_without_quantization(folder: Path) -> transformers.PretrainedConfig:
    change_config(folder, None)
    return transformers.AutoConfig.from_pretrained(folder)


def test_a_matrix_that_is_plain_although_its_config_quantizes_it(folder: Path) -> None:
    values = quantize_folder(folder, CASES["ct-pack-4-group"])
    stored = load_file(folder / "model.safetensors")
    plain = {name: value for name, value in stored.items() if not name.startswith(f"{MATRIX}.")}
    save_file(plain | {f"{MATRIX}.weight": values[f"{MATRIX}.weight"]}, folder / "model.safetensors")
    refused(folder, "layers.0.mlp.up_proj", "is quantized")
    change_config(folder, config_of("ct-pack-4-group", ignore=[MATRIX]))
    assert open_checkpoint(folder)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("ct-pack-4-group", "weight_zero_point"),
        ("ct-pack-4-group", "weight_g_idx"),
        ("ct-float8-channel", "weight_global_scale"),
        ("ct-nvfp4", "weight_zero_point"),
        ("fp8-128", "weight_scale"),
        ("modelopt-fp8", "weight_scale_2"),
        ("awq", "g_idx"),
        ("gptq-4", "weight_scale"),
    ],
)
def test_a_part_that_no_scheme_reads_is_named(name: str, part: str, folder: Path) -> None:
    quantize_folder(folder, CASES[name])
    stored = load_file(folder / "model.safetensors")
    save_file(stored | {f"{MATRIX}.{part}": torch.ones(1)}, folder / "model.safetensors")
    refused(folder, "layers.0.mlp.up_proj", part)


def test_a_scale_before_quantization_is_no_part_of_the_model(folder: Path) -> None:
    """modelopt's AWQ scales the inputs of a layer by a vector."""
    quantize_folder(folder, CASES["modelopt-nvfp4"])
    stored = load_file(folder / "model.safetensors")
    save_file(stored | {f"{MATRIX}.pre_quant_scale": torch.ones(64)}, folder / "model.safetensors")
    refused(folder, "pre_quant_scale")


@pytest.mark.parametrize(("name", "part"), [("ct-pack-act-order", "weight_g_idx"), ("gptq-4-act-order", "g_idx")])
def test_act_order_needs_its_index(name: str, part: str, folder: Path) -> None:
    quantize_folder(folder, CASES[name])
    stored = load_file(folder / "model.safetensors")
    del stored[f"{MATRIX}.{part}"]
    save_file(stored, folder / "model.safetensors")
    refused(folder, "layers.0.mlp.up_proj", part)


def test_config_that_is_no_object(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantization_config": [1]}))
    refused(folder, "quantized by")


# Which modules


def quantized(config: dict[str, Any], module: Module) -> bool:
    scheme = scheme_of(Path("config.json"), config)
    return scheme.reader(module) is not None


@pytest.mark.parametrize(
    ("names", "left_out"),
    [
        (["layers.0.mlp.up_proj"], True),
        (["model.layers.0.mlp.up_proj"], True),
        (["model.language_model.layers.0.mlp.up_proj"], True),
        (["re:.*up_proj$"], True),
        (["re:up_proj"], False),
        (["up_proj"], False),
        (["Linear"], True),
        (["Embedding"], False),
        ([], False),
    ],
)
def test_names_of_compressed_tensors(names: list[str], left_out: bool) -> None:
    assert quantized(config_of("ct-pack-4-group", ignore=names), UP) is not left_out


@pytest.mark.parametrize(
    ("names", "left_out"),
    [
        (["up_proj"], True),
        (["model.layers.0"], True),
        (["model.layers.0.*"], True),
        (["mlp.up"], False),
        (["model.layers.1"], False),
        (["layers.[0-3].mlp.up_proj"], True),
    ],
)
def test_names_of_transformers(names: list[str], left_out: bool) -> None:
    assert quantized(config_of("fp8-128", modules_to_not_convert=names), UP) is not left_out
    assert quantized(config_of("awq", modules_to_not_convert=names), UP) is not left_out


@pytest.mark.parametrize(
    ("names", "left_out"),
    [
        (["model.layers.0*"], True),
        (["model.language_model.layers.0.mlp"], True),
        (["*up_proj"], True),
        (["up_proj"], False),
        (["model.layers.1*", "lm_head"], False),
    ],
)
def test_names_of_modelopt(names: list[str], left_out: bool) -> None:
    assert quantized(config_of("modelopt-fp8", ignore=names), UP) is not left_out


def test_mixed_precision_names_the_algorithm_of_each_module() -> None:
    layers = {"model.layers.0.mlp": {"quant_algo": "FP8"}, DOWN.stored: {"quant_algo": "NVFP4", "group_size": 16}}
    config = {"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION", "quantized_layers": layers}
    scheme = scheme_of(Path("config.json"), config)
    single = {name: scheme_of(Path("config.json"), config_of(name)) for name in ("modelopt-fp8", "modelopt-nvfp4")}
    assert scheme.reader(UP) is single["modelopt-fp8"].reader(UP)
    assert scheme.reader(DOWN) is single["modelopt-nvfp4"].reader(DOWN)
    assert scheme.reader(Module("layers.1.mlp.up_proj", "model.layers.1.mlp.up_proj")) is None


def test_the_closest_group_is_meant(folder: Path) -> None:
    """A name before a pattern before a class, in whichever order the groups stand."""
    wide, narrow = packed_case(8, "channel"), packed_case(4, "channel")
    config = deepcopy(wide.config)
    config["format"] = "mixed-precision"
    config["config_groups"]["group_0"]["format"] = "pack-quantized"
    config["config_groups"]["group_1"] = deepcopy(narrow.config["config_groups"]["group_0"])
    config["config_groups"]["group_1"] |= {"targets": [MATRIX], "format": "pack-quantized"}
    values = quantize_folder(folder, wide)
    stored = load_file(folder / "model.safetensors")
    rows, columns = values[f"{MATRIX}.weight"].shape
    parts, _ = narrow.draw(rows, columns, torch.Generator().manual_seed(5))
    save_file(stored | {f"{MATRIX}.{part}": tensor for part, tensor in parts.items()}, folder / "model.safetensors")
    change_config(folder, config)
    tensors = open_checkpoint(folder).tensors
    assert tensors["layers.0.mlp.up_proj.weight"].nbytes < tensors["layers.1.mlp.up_proj.weight"].nbytes


def test_dynamic_overrides_of_gptq(folder: Path) -> None:
    """Other bits and groups for a pattern of names, none for another; what stands first decides."""
    quantize_folder(folder, gptq_case(4, 32))
    stored = load_file(folder / "model.safetensors")
    rng = torch.Generator().manual_seed(5)
    parts, values = gptq_case(8, -1).draw(128, 64, rng)
    stored |= {f"{MATRIX}.{part}": tensor for part, tensor in parts.items()}
    for part in ("qweight", "qzeros", "scales", "g_idx"):
        del stored[f"model.layers.1.mlp.up_proj.{part}"]
    save_file(stored | {"model.layers.1.mlp.up_proj.weight": torch.ones(128, 64)}, folder / "model.safetensors")
    dynamic = {r"-:.*layers\.1\..*up_proj": {}, r"+:.*layers\.[01]\.mlp\.up_proj": {"bits": 8, "group_size": -1}}
    change_config(folder, config_of("gptq-4", dynamic=dynamic))
    found = open_checkpoint(folder).tensors
    assert found["layers.0.mlp.up_proj.weight"].shape == tuple(values.shape)
    change_config(folder, config_of("gptq-4"))
    refused(folder, "layers.0.mlp.up_proj")


def test_widths_of_modules_of_auto_round() -> None:
    extra = {UP.stored: {"bits": 16, "data_type": "float"}, DOWN.stored: {"bits": 8, "group_size": 64}}
    config = config_of("auto-round-gptq", extra_config=extra)
    assert not quantized(config, UP)
    assert quantized(config, DOWN)
