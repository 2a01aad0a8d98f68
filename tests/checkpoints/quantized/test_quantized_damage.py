"""Damaged and contradictory quantized folders end in one sentence, or in a checkpoint whose tensors are whole."""

from __future__ import annotations

import json
import math
import random
import warnings
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from quantized_folders import change_config, quantize_folder
from quantizers import CASES
from safetensors.torch import load_file, save_file
from tiny_checkpoints import Tiny

from outrider.checkpoints import open_checkpoint
from outrider.checkpoints.checkpoint import GroupScales, Tensor, bytes_as
from outrider.errors import CheckpointError

SCHEMES = [
    "ct-pack-4-group",
    "ct-pack-3-zeros",
    "ct-pack-8-zeros",
    "ct-pack-act-order",
    "ct-int8-zeros",
    "ct-float8-block",
    "ct-nvfp4",
    "ct-mxfp4",
    "fp8-128",
    "modelopt-nvfp4",
    "modelopt-fp8-channel",
    "awq",
    "gptq-3",
    "gptq-4-act-order",
    "auto-round-gptq",
]
Stored = dict[str, torch.Tensor]
VALUES: list[Any] = [-7, -1, 0, 1, 3, 5, 1 << 40, 10**400, float("nan"), 1.5, None, "x", "", "(", [], [1], {}, {"a": 1}]
VALUES += [True, False, ["re:("], ["re:.*"], ["Linear"], [0, 0], [1, 1], [-1, 128], "group", "gptq_v2"]


def damage_tensors(stored: Stored, rng: random.Random) -> None:
    """One injury to one part of a quantized matrix."""
    names = [name for name in stored if ".mlp." in name or "_proj." in name]
    name = rng.choice(names)
    tensor = stored[name]
    kind = rng.randrange(9)
    if kind == 0:
        del stored[name]
    elif kind == 1:
        stored[name.rpartition(".")[0] + "." + rng.choice(names).rpartition(".")[2]] = stored.pop(name)
    elif kind == 2:
        stored[name] = tensor.reshape(-1)[: rng.randrange(tensor.numel() + 1)].clone()
    elif kind == 3:
        stored[name] = tensor.T.contiguous() if tensor.ndim == 2 else tensor.reshape(1, -1)
    elif kind == 4:
        dtype = rng.choice([torch.int32, torch.float32, torch.uint8, torch.float16, torch.int64, torch.float64])
        stored[name] = tensor.float().nan_to_num().to(dtype)
    elif kind == 5:
        stored[name] = torch.cat([tensor.reshape(tensor.shape or (1,))] * rng.randint(2, 3))
    elif kind == 6:
        stored[name.rpartition(".")[0] + "." + rng.choice(["weight", "bias", "scales", "weight_scale_2"])] = (
            tensor.clone()
        )
    else:
        raw = tensor.contiguous().reshape(-1).clone().view(torch.uint8)
        for _ in range(rng.randint(1, 4)):
            raw[rng.randrange(len(raw))] = rng.choice([0, 0x7F, 0x80, 0xFF, rng.randrange(256)])
        if rng.random() < 0.3:
            raw[:] = rng.choice([0, 0x7F, 0xFF])
        stored[name] = raw.view(tensor.dtype).reshape(tensor.shape)


def damage_config(config: dict[str, Any], rng: random.Random) -> None:
    """One setting replaced or removed, at any depth."""
    section, key = config, ""
    while True:
        key = rng.choice(list(section))
        if not isinstance(section[key], dict) or not section[key] or rng.random() < 0.2:
            break
        section = section[key]
    if rng.random() < 0.2:
        del section[key]
    else:
        section[key] = rng.choice(VALUES)


def open_all(folder: Path) -> bool:
    """Whether it opened and every tensor can be read. Anything but a CheckpointError fails the test."""
    refusal: CheckpointError | None = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for tensor in open_checkpoint(folder).tensors.values():
                assert len(tensor.data) == bytes_as(tensor.shape, tensor.format)
                if tensor.scales:
                    assert tensor.scales.scale.shape[0] == math.prod(tensor.shape[:-1])
                    assert tensor.scales.zero is None or tensor.scales.zero.shape == tensor.scales.scale.shape
                    assert (
                        tensor.nbytes == len(tensor.data) + GroupScales(tensor.scales.scale, tensor.scales.zero).nbytes
                    )
    except CheckpointError as error:
        refusal = error
    if refusal:
        assert str(folder) in str(refusal)
        assert refusal.remedy
        assert "\n" not in str(refusal)
    return refusal is None


@pytest.fixture
def damage(tiny: Callable[[str], Tiny], copy_of: Callable[[Path], Path]) -> Callable[[str, int], int]:
    """Damages a folder of a scheme so many times, each time anew; returns how many could still be read."""

    def run(scheme: str, count: int) -> int:
        folder = copy_of(tiny("gemma3").folder)
        quantize_folder(folder, CASES[scheme])
        assert open_all(folder)
        whole = load_file(folder / "model.safetensors")
        opened = 0
        for seed in range(count):
            rng = random.Random(seed)
            stored, config = dict(whole), deepcopy(CASES[scheme].config)
            if rng.random() < 0.6:
                damage_tensors(stored, rng)
            else:
                damage_config(config, rng)
            save_file(stored, folder / "model.safetensors")
            change_config(folder, config)
            opened += open_all(folder)
        return opened

    return run


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_damaged_folder_ends_in_a_sentence(scheme: str, damage: Callable[[str, int], int]) -> None:
    assert damage(scheme, 20) < 16


@pytest.mark.full
@pytest.mark.parametrize("scheme", SCHEMES)
def test_many_damaged_folders_end_in_a_sentence(scheme: str, damage: Callable[[str, int], int]) -> None:
    """10,000 over all schemes."""
    assert damage(scheme, 670) < 500


MATRIX = "model.layers.2.mlp.gate_proj"


@pytest.mark.parametrize(
    ("scheme", "part", "value", "message"),
    [
        ("ct-pack-4-group", "weight_scale", float("nan"), "not finite"),
        ("fp8-128", "weight_scale_inv", float("inf"), "not finite"),
        ("ct-nvfp4", "weight_scale", float("nan"), "no number"),
        ("ct-nvfp4", "weight_scale", -1.0, "negative"),
        ("ct-nvfp4", "weight_global_scale", 0.0, "by 0"),
        ("modelopt-nvfp4", "weight_scale_2", float("nan"), "not finite"),
        ("modelopt-nvfp4", "weight_scale_2", -1.0, "scales"),
        ("ct-mxfp4", "weight_scale", 255, "no number"),
        ("gptq-4-act-order", "g_idx", 99, "groups that it does not have"),
        ("gptq-4-act-order", "g_idx", -1, "groups that it does not have"),
        ("ct-pack-act-order", "weight_g_idx", 2, "groups that it does not have"),
        ("awq", "scales", float("-inf"), "not finite"),
        ("ct-pack-4-group", "weight_shape", 0, "the shape"),
        ("ct-pack-4-group", "weight_shape", 1 << 40, "weight_packed"),
    ],
)
def test_values_that_cannot_be(
    scheme: str, part: str, value: float, message: str, tiny: Callable[[str], Tiny], copy_of: Callable[[Path], Path]
) -> None:
    folder = copy_of(tiny("gemma3").folder)
    quantize_folder(folder, CASES[scheme])
    stored = load_file(folder / "model.safetensors")
    changed = stored[f"{MATRIX}.{part}"].clone()
    flat = changed.reshape(-1)
    flat[0] = torch.tensor(value, dtype=torch.float32).to(changed.dtype) if isinstance(value, float) else value
    save_file(stored | {f"{MATRIX}.{part}": changed}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=message) as caught:
        read(open_checkpoint(folder).tensors["layers.2.mlp.gate_proj.weight"])
    assert "layers.2.mlp.gate_proj" in str(caught.value)


def read(tensor: Tensor) -> None:
    """As a matrix is packed."""
    assert len(tensor.data)
    if tensor.scales:
        assert tensor.scales.scale.size
        assert tensor.scales.zero is None or tensor.scales.zero.size


def test_an_expert_that_is_missing(tiny: Callable[[str], Tiny], copy_of: Callable[[Path], Path]) -> None:
    folder = copy_of(tiny("gemma4-moe").folder)
    quantize_folder(folder, CASES["fp8-128"])
    stored = load_file(folder / "model.safetensors")
    gone = {name: tensor for name, tensor in stored.items() if ".layers.1.experts.3.up_proj." not in name}
    assert len(gone) == len(stored) - 2
    save_file(gone, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"layers\.1\.experts\.3\.up_proj"):
        open_checkpoint(folder)
    last = {name: tensor for name, tensor in stored.items() if ".experts.7." not in name}
    save_file(last, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"experts"):
        open_checkpoint(folder)


def test_a_damaged_config_of_its_own_is_named(tiny: Callable[[str], Tiny], copy_of: Callable[[Path], Path]) -> None:

    folder = copy_of(tiny("gemma3").folder)
    (folder / "hf_quant_config.json").write_text(json.dumps({"quantization": 3}))
    with pytest.raises(CheckpointError, match=r"hf_quant_config\.json"):
        open_checkpoint(folder)
