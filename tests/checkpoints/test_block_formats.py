"""Every block format: its values, its bytes once packed, and which types are refused or left out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
import tiny_checkpoints as tiny_files
from block_formats import FORMATS
from gguf import GGMLQuantizationType as Type
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_checkpoints import Tiny

from outrider.backends import cpu
from outrider.checkpoints import open_checkpoint
from outrider.checkpoints.checkpoint import BLOCKS, Format
from outrider.checkpoints.gguf.file import TENSOR_TYPES
from outrider.errors import CheckpointError


@pytest.mark.parametrize("kind", FORMATS)
@settings(max_examples=60)
@given(data=st.data())
def test_values_equal_the_gguf_packages(kind: Format, data: st.DataObject) -> None:
    """All bytes are possible: scales that are infinite or no numbers, and codes that no quantizer writes."""
    weights, size = BLOCKS[kind]
    raw = np.frombuffer(data.draw(st.binary(min_size=2 * size, max_size=2 * size)), np.uint8)
    with np.errstate(all="ignore"):
        expected = gguf.quants.dequantize(raw.reshape(1, -1), Type[kind])
    np.testing.assert_array_equal(cpu.dequantize(kind, 1, 2 * weights, raw), expected)


@pytest.mark.parametrize("kind", FORMATS)
def test_random_blocks_equal_the_gguf_packages(kind: Format) -> None:
    weights, size = BLOCKS[kind]
    raw = np.random.default_rng(1).integers(0, 256, 500 * size, np.uint8)
    with np.errstate(all="ignore"):
        expected = gguf.quants.dequantize(raw.reshape(500, -1), Type[kind])
    np.testing.assert_array_equal(cpu.dequantize(kind, 500, weights, raw), expected)


@pytest.mark.parametrize("kind", FORMATS)
def test_packing_adds_little(kind: Format) -> None:
    weights, size = BLOCKS[kind]
    blocks = np.zeros(16 * 256 // weights * size, np.uint8)
    assert cpu.pack(kind, 16, 256, blocks, cpu.ThreadPool(1)).nbytes <= 1.35 * blocks.nbytes


@pytest.mark.parametrize("kind", ["IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ1_S", "IQ1_M", "TQ1_0", "Q1_0", "Q8_1", "F64", "I8"])
def test_a_type_that_is_left_out_is_named_with_the_nearest(
    kind: str, tiny: Callable[[str], Tiny], tmp_path: Path
) -> None:
    path = _with_type(tiny("gemma3").gguf, tmp_path / "model.gguf", "blk.0.attn_q.weight", kind)
    nearest = {"TQ1_0": "TQ2_0", "Q1_0": "TQ2_0", "Q8_1": "Q8_0", "F64": "F32", "I8": "one of F32"}.get(kind, "Q2_K")
    with pytest.raises(CheckpointError, match=f"blk.0.attn_q.weight as type {kind}, .* to {nearest}"):
        open_checkpoint(path)


def test_types_of_encoders_do_not_matter(tiny: Callable[[str], Tiny], tmp_path: Path) -> None:
    """A combined file: the text model is loaded, whatever its vision and audio encoders are stored as."""
    names = ("v.blk.0.attn_q.weight", "a.blk.0.conv.weight", "mm.0.weight")

    def edit(writer: gguf.GGUFWriter) -> None:
        for name in names:
            writer.add_tensor(name, np.ones((4, 32), np.float32))

    path = tiny_files.save_gguf(tiny("gemma3").model, tmp_path / "model.gguf", edit=edit)
    for name, kind in zip(names, ("IQ1_S", "I8", "F64"), strict=True):
        _with_type(path, path, name, kind)
    found, alone = open_checkpoint(path), open_checkpoint(tiny("gemma3").gguf)
    assert found.left_out == 3
    assert list(found.tensors) == list(alone.tensors)


def _with_type(source: Path, target: Path, name: str, kind: str) -> Path:
    """A copy of a file in which a tensor is said to be of another type."""
    raw = bytearray(source.read_bytes())
    at = raw.index(len(name).to_bytes(8, "little") + name.encode()) + 8 + len(name)
    at += 4 + 8 * int.from_bytes(raw[at : at + 4], "little")
    raw[at : at + 4] = TENSOR_TYPES.index(kind).to_bytes(4, "little")
    target.write_bytes(raw)
    return target


@pytest.mark.parametrize("shape", [(3,), (2, 1), (1, 1)])
def test_a_factor_of_another_shape_is_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    from block_formats import save_blocks, wide_model

    model = wide_model("gemma4-e2b")

    def edit(writer: gguf.GGUFWriter) -> None:
        writer.add_tensor("blk.0.attn_q.scale", np.ones(shape, np.float32))

    path = save_blocks(model, tmp_path / "model.gguf", "NVFP4", edit=edit)
    with pytest.raises(CheckpointError, match=r"blk\.0\.attn_q\.scale as F32"):
        open_checkpoint(path)
