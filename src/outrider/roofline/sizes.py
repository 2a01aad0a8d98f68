"""The published sizes of Gemma 4 with their drafters, as shapes without weights: to plan for what is not downloaded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from outrider.arrays import Bytes
from outrider.checkpoints import AssistantConfig, Format, ModelConfig, Tensor
from outrider.checkpoints.checkpoint import BLOCKS
from outrider.checkpoints.hf.config import hf_config
from outrider.checkpoints.settings import Settings
from outrider.checkpoints.validate import expected_shapes

_FILE = "gemma4_sizes.json"
SIZES = ("E2B", "E4B", "12B", "26B-A4B", "31B")


class Size(NamedTuple):
    """A target and its drafter: configs, and tensors of which only names, shapes and formats are there."""

    config: ModelConfig
    tensors: Mapping[str, Tensor]
    drafter_config: AssistantConfig
    drafter_tensors: Mapping[str, Tensor]


def published_size(name: str, weights: Format) -> Size:
    """One of `SIZES`, in any case of its letters, as its config.json on the hub describes it.

    Args:
        weights: the format of every matrix whose rows are whole blocks of it; of the others, BF16.

    Raises:
        KeyError: there is no size of that name.
    """
    known = {size.lower(): size for size in SIZES}
    described = json.loads((files("outrider.roofline") / _FILE).read_text("utf-8"))[known[name.lower()]]
    target = hf_config(Settings(described["target"], Path(_FILE)), Settings({}, Path(_FILE)))
    drafter = hf_config(Settings(described["drafter"], Path(_FILE)), Settings({}, Path(_FILE)))
    assert isinstance(target, ModelConfig)
    assert isinstance(drafter, AssistantConfig)
    return Size(target, _tensors(target, weights), drafter, _tensors(drafter, weights))


def _tensors(config: ModelConfig | AssistantConfig, weights: Format) -> dict[str, Tensor]:
    return {
        name: Tensor(name, _format(shape, weights), shape, _absent) for name, shape in expected_shapes(config).items()
    }


def _format(shape: tuple[int, ...], weights: Format) -> Format:
    if len(shape) == 1:
        return "F32"
    return weights if shape[-1] % BLOCKS[weights][0] == 0 else "BF16"


def _absent() -> Bytes:
    raise AssertionError("a published size has shapes, and no weights")
