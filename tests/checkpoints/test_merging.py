"""An adapter merged at load is what PEFT merges."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch
from tiny_adapters import adapted, merged, save_adapter
from tiny_checkpoints import save_folder, save_gguf

from outrider import LLM
from outrider.checkpoints import adapters, open_checkpoint
from outrider.engine.scoring import logits_of
from outrider.errors import CheckpointError
from outrider.quant import QUANTIZATIONS

IDS = [int(token) for token in np.random.default_rng(3).integers(3, 512, 40)]


@pytest.fixture
def made(tiny):
    return adapted(tiny("gemma4-e2b").model, seed=4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_weight_is_peft_s_rounded_once(tiny, tmp_path, made, dtype):
    checkpoint = open_checkpoint(save_folder(tiny("gemma4-e2b").model, tmp_path / "base", dtype=dtype))
    adapter = adapters.open_adapter(save_adapter(made, tmp_path / "adapter"), checkpoint.config)
    found = adapters.merged(checkpoint, adapter)
    for name, tensor in found.tensors.items():
        before = checkpoint.tensors[name]
        assert (tensor.format, tensor.shape) == (before.format, before.shape)
        exact = before.float32()
        if (part := adapter.low_rank.get(name)) is not None:
            exact = exact + np.float32(part.scale) * (part.b.float32() @ part.a.float32())
        rounded = torch.from_numpy(exact).to(dtype).float().numpy()
        one_step = {torch.float32: 1e-6, torch.bfloat16: 2**-7, torch.float16: 2**-10}[dtype]
        np.testing.assert_allclose(tensor.float32(), rounded, rtol=one_step, atol=1e-6)
        assert np.mean(tensor.float32() == rounded) > (0.99 if dtype != torch.float32 else 0)
    assert set(found.files) > set(checkpoint.files)


def test_logits_are_those_of_peft_s_merged_model(tiny, tmp_path, made):
    llm = LLM(
        tiny("gemma4-e2b").gguf,
        lora=save_adapter(made, tmp_path),
        kv_cache_dtype="float32",
        progress=False,
    )
    with torch.no_grad():
        expected = merged(made)(torch.tensor([IDS])).logits[0].numpy()
    found = logits_of(llm.parts, IDS)
    assert np.linalg.norm(found - expected) < 1e-4 * np.linalg.norm(expected)
    assert not llm.parts.adapters


@pytest.mark.parametrize("quantize", QUANTIZATIONS)
def test_quantizing_on_load_comes_after(tiny, tmp_path, made, monkeypatch, quantize):
    """The pack on disk is of the merged weights: that of the base, made before, is not taken for it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def logits(path, **options):
        with LLM(path, drafter=None, progress=False, quantize=quantize, **options) as llm:
            return logits_of(llm.parts, IDS)

    plain = logits(tiny("gemma4-e2b").gguf)
    found = logits(tiny("gemma4-e2b").gguf, lora=save_adapter(made, tmp_path / "one"))
    expected = logits(save_gguf(merged(made), tmp_path / "merged.gguf"))
    assert np.linalg.norm(found - expected) < 0.05 * np.linalg.norm(expected)
    assert np.linalg.norm(found - plain) > 0.1 * np.linalg.norm(expected)


def test_quantized_weights_are_refused_with_what_works(tiny, tmp_path, made):
    path = save_gguf(tiny("gemma4-e2b").model, tmp_path / "q4.gguf", gguf.GGMLQuantizationType.Q4_0)
    with pytest.raises(CheckpointError, match=r"stores .* as Q4_0\. Keep it apart"):
        LLM(path, lora=save_adapter(made, tmp_path / "one"), progress=False)


def test_the_product_has_the_same_bits_everywhere(tiny, tmp_path, made):
    """Of a matrix product of numpy's, they depend on the processor: here they are added up in one order."""
    checkpoint = open_checkpoint(tiny("gemma4-e2b").gguf)
    adapter = adapters.open_adapter(save_adapter(made, tmp_path), checkpoint.config)
    part = adapter.low_rank["layers.1.mlp.down_proj.weight"]
    a, b = part.a.float32(), part.b.float32()
    row = np.zeros(a.shape[1], np.float32)
    for rank in range(len(a)):
        row = row + b[5, rank] * a[rank]
    assert np.array_equal(part.product()[5], row * np.float32(part.scale))
