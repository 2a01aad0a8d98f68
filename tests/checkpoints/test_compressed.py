"""Integer weights as the compressed-tensors package stores them: its own packing and unpacking are the reference."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
from native_model import NativeModel
from safetensors.torch import load_file, save_file
from tiny_checkpoints import Tiny

from outrider.backends import cpu
from outrider.checkpoints import open_checkpoint
from outrider.errors import CheckpointError

SCHEME: dict[str, Any] = {
    "quant_method": "compressed-tensors",
    "format": "pack-quantized",
    "quantization_status": "compressed",
    "ignore": ["lm_head"],
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "input_activations": None,
            "output_activations": None,
            "weights": {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 32},
        }
    },
}
Rounded = dict[str, torch.Tensor]


def quantize_folder(folder: Path, *, bits: int, group: int | None, scale_dtype: torch.dtype) -> Rounded:
    """Rewrites a folder's linear weights as packed integers; returns what they are then worth, by name."""
    worth: Rounded = {}
    stored = load_file(folder / "model.safetensors")
    for name, weight in list(stored.items()):
        if not name.endswith("_proj.weight"):
            continue
        rows, columns = weight.shape
        width = group or columns
        grouped = weight.view(rows, columns // width, width)
        scale = (grouped.abs().amax(-1) / (2 ** (bits - 1) - 1)).to(scale_dtype)
        codes = (grouped / scale.float()[..., None]).round().clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        worth[name] = (codes * scale.float()[..., None]).view(rows, columns)
        del stored[name]
        stem = name.removesuffix("weight")
        stored[f"{stem}weight_packed"] = pack_to_int32(codes.view(rows, columns).to(torch.int8), bits)
        stored[f"{stem}weight_scale"] = scale
        stored[f"{stem}weight_shape"] = torch.tensor([rows, columns])
    save_file(stored, folder / "model.safetensors")
    change_config(folder, bits)
    return worth


def change_config(folder: Path, bits: int, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    scheme = json.loads(json.dumps(SCHEME))
    scheme["config_groups"]["group_0"]["weights"]["num_bits"] = bits
    scheme["config_groups"]["group_0"]["weights"] |= changes
    config["quantization_config"] = scheme
    (folder / "config.json").write_text(json.dumps(config))


@pytest.fixture
def folder(tiny: Callable[[str], Tiny], copy_of: Callable[[Path], Path]) -> Path:
    return copy_of(tiny("gemma4-e2b").folder)


CASES = [(4, 32, torch.bfloat16), (4, 64, torch.float16), (4, None, torch.bfloat16), (8, 32, torch.bfloat16)]


@pytest.mark.parametrize(("bits", "group", "dtype"), CASES, ids=["4 by 32", "4 by 64", "4 by row", "8 by 32"])
def test_every_value_is_kept(folder: Path, bits: int, group: int | None, dtype: torch.dtype) -> None:
    worth = quantize_folder(folder, bits=bits, group=group, scale_dtype=dtype)
    assert worth
    tensors = open_checkpoint(folder).tensors
    for name, values in worth.items():
        tensor = tensors[name.removeprefix("model.")]
        assert tensor.format == {4: "Q4_0", 8: "Q8_0"}[bits]
        found = cpu.dequantize(tensor.format, *tensor.shape, tensor.data)
        np.testing.assert_array_equal(found, values.numpy(), err_msg=name)
        assert tensor.nbytes == len(tensor.data)


def test_a_scale_that_is_no_float16_loses_nothing(folder: Path) -> None:
    worth = quantize_folder(folder, bits=4, group=32, scale_dtype=torch.float32)
    tensors = open_checkpoint(folder).tensors
    for name, values in worth.items():
        tensor = tensors[name.removeprefix("model.")]
        assert tensor.format == "F32"
        np.testing.assert_array_equal(tensor.float32(), values.numpy(), err_msg=name)


def test_it_computes_what_transformers_does(folder: Path) -> None:
    """From file to logits, against transformers with the same values, unquantized."""
    worth = quantize_folder(folder, bits=4, group=32, scale_dtype=torch.bfloat16)
    config = transformers.AutoConfig.from_pretrained(folder)
    del config.quantization_config
    reference = transformers.Gemma4ForCausalLM(config).eval()
    stored = load_file(folder / "model.safetensors")
    left = reference.load_state_dict(
        {n: v for n, v in stored.items() if "_proj.weight_" not in n} | worth, strict=False
    )
    assert left.missing_keys == ["lm_head.weight"]
    assert not left.unexpected_keys
    reference.tie_weights()
    prompt = list(range(3, 40))
    with torch.no_grad():
        logits = reference(torch.tensor([prompt])).logits[0].numpy()
    ours, _ = NativeModel(folder, dequantized=True, kv_format="float32").whole(prompt)
    np.testing.assert_allclose(ours, logits, atol=2e-4)


def refusals() -> Iterator[tuple[dict[str, Any], str]]:
    yield {"symmetric": False}, "of type 'int'"
    yield {"num_bits": 3}, "3 bits"
    yield {"type": "float"}, "of type 'float'"


@pytest.mark.parametrize(("changes", "part"), refusals())
def test_another_scheme_is_refused(folder: Path, changes: dict[str, Any], part: str) -> None:
    change_config(folder, 4, **changes)
    with pytest.raises(CheckpointError, match="not supported") as caught:
        open_checkpoint(folder)
    assert part in str(caught.value)


@pytest.mark.parametrize("part", ["weight_scale", "weight_shape", "weight_packed"])
def test_a_missing_part_is_named(folder: Path, part: str) -> None:
    quantize_folder(folder, bits=4, group=32, scale_dtype=torch.bfloat16)
    stored = load_file(folder / "model.safetensors")
    del stored[next(name for name in stored if name.endswith(part))]
    save_file(stored, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=f"without {part}"):
        open_checkpoint(folder)


def test_zero_points_are_refused(folder: Path) -> None:
    quantize_folder(folder, bits=4, group=32, scale_dtype=torch.bfloat16)
    stored = load_file(folder / "model.safetensors")
    scale = next(name for name in stored if name.endswith("weight_scale"))
    stored[scale.replace("scale", "zero_point")] = torch.zeros_like(stored[scale])
    save_file(stored, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="weight_zero_point"):
        open_checkpoint(folder)
