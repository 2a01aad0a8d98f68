"""Every value of a quantized matrix is what the maker's own decoder gives, for random codes and scales."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from native_model import dequantized_tensors
from quantizers import CASES, Parts

from outrider.checkpoints.hf.quantized.bits import E2M1, E4M3, packed, unpacked
from outrider.checkpoints.hf.quantized.methods import scheme_of
from outrider.checkpoints.hf.quantized.parts import Module
from outrider.checkpoints.hf.quantized.parts import Parts as StoredParts
from outrider.checkpoints.hf.quantized.scheme import Matrix
from outrider.checkpoints.hf.safetensors_file import StoredTensor

DTYPES = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.float8_e4m3fn: "F8_E4M3",
}
ROUNDED_TWICE = ("ct-nvfp4",)
"""Its decoder rounds the quotient of two scales, and then the product with the weight."""


def stored(parts: Parts) -> dict[str, StoredTensor]:
    out = {}
    for name, tensor in parts.items():
        data = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
        out[name] = StoredTensor(f"model.layers.0.mlp.up_proj.{name}", DTYPES[tensor.dtype], tuple(tensor.shape), data)
    return out


def matrix_of(config: dict[str, Any], parts: Parts) -> Matrix:
    """The matrix of these parts, through the reader."""
    scheme = scheme_of(Path("config.json"), config)
    module = Module("layers.0.mlp.up_proj", "model.layers.0.mlp.up_proj")
    reader = scheme.reader(module)
    assert reader
    return reader(StoredParts(module, f"{module.name}.weight", stored(parts), Path("folder")))


def read(config: dict[str, Any], parts: Parts) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The values of a matrix in the format that the reader chooses, and in float32."""
    matrix = matrix_of(config, parts)
    tensor = matrix.tensor()
    return dequantized_tensors({tensor.name: tensor})[tensor.name].float32(), matrix.float32().float32()


@pytest.mark.parametrize("name", CASES)
@examples(max_examples=12)
@given(rows=st.integers(1, 6), columns=st.integers(1, 4), seed=st.integers(0, 1 << 30))
@example(rows=1, columns=1, seed=0)
def test_every_value_is_the_reference_decoders(name: str, rows: int, columns: int, seed: int) -> None:
    rows, columns = 32 * rows, 64 * columns
    parts, values = CASES[name].draw(rows, columns, torch.Generator().manual_seed(seed))
    for found in read(CASES[name].config, parts):
        assert found.shape == (rows, columns)
        if name in ROUNDED_TWICE:
            np.testing.assert_allclose(found, values.numpy(), rtol=3e-7, atol=0)
        else:
            np.testing.assert_array_equal(found, values.numpy())


FORMATS = {
    "ct-pack-2-channel": "I2",
    "ct-pack-3-channel": "I4",
    "ct-pack-4-channel": "I4",
    "ct-pack-5-channel": "I8",
    "ct-pack-4-group": "Q4_0",
    "ct-pack-4-float32": "I4",
    "ct-pack-4-group-16": "F32",
    "ct-pack-4-zeros": "I4",
    "ct-pack-8-group": "I8",
    "ct-pack-act-order": "F32",
    "ct-int8-channel": "I8",
    "ct-float8-channel": "F8_E4M3",
    "fp8-128": "F8_E4M3",
    "fp8-tensor": "F8_E4M3",
    "modelopt-fp8": "F8_E4M3",
    "awq": "I4",
    "awq-symmetric": "Q4_0",
    "gptq-2": "I2",
    "gptq-3": "I4",
    "gptq-4": "I4",
    "gptq-4-symmetric": "Q4_0",
    "gptq-8": "I8",
    "gptq-8-symmetric": "Q8_0",
    "gptq-4-uneven": "I4",
    "gptq-4-act-order": "F32",
}
"""The smallest format that holds every value."""


@pytest.mark.parametrize("name", FORMATS)
def test_the_format_of_each_scheme(name: str) -> None:
    parts, _ = CASES[name].draw(32, 256, torch.Generator().manual_seed(1))
    if name == "gptq-8":  # a zero point of 256 does not fit a byte
        parts["qzeros"] &= 0x7F7F7F7F
    assert matrix_of(CASES[name].config, parts).tensor().format == FORMATS[name]


@pytest.mark.parametrize(
    ("name", "format"), [("ct-nvfp4", "NVFP4"), ("modelopt-nvfp4", "NVFP4"), ("ct-mxfp4", "MXFP4")]
)
def test_4_bit_floats_are_blocks_of_gguf(name: str, format: str) -> None:
    parts, values = CASES[name].draw(3, 128, torch.Generator().manual_seed(1))
    tensor = matrix_of(CASES[name].config, parts).tensor()
    assert tensor.format == format
    blocks = gguf.quants.dequantize(tensor.data.reshape(3, -1), gguf.GGMLQuantizationType[format])
    np.testing.assert_allclose(blocks * np.float32(tensor.factor), values.numpy(), rtol=3e-7, atol=0)


@given(st.integers(1, 8), st.integers(1, 40), st.integers(1, 5), st.integers(0, 1 << 30))
def test_dense_codes_are_found_at_their_bits(bits: int, columns: int, rows: int, seed: int) -> None:
    codes = np.random.default_rng(seed).integers(0, 1 << bits, (rows, columns)).astype(np.uint8)
    whole = [sum(int(code) << index * bits for index, code in enumerate(row)) for row in codes]
    size = -(-columns * bits // 8)
    data = np.frombuffer(b"".join(row.to_bytes(size, "little") for row in whole), np.uint8)
    np.testing.assert_array_equal(unpacked(data, rows, columns, bits), codes)
    if bits in (2, 4, 8) and columns * bits % 8 == 0:
        np.testing.assert_array_equal(packed(codes, bits), data)


def test_small_floats_are_torchs() -> None:
    codes = torch.arange(256, dtype=torch.uint8)
    np.testing.assert_array_equal(E4M3, codes.view(torch.float8_e4m3fn).float().numpy())
    assert E2M1.tolist() == [0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6]
