"""Every variant's forward pass against transformers' own, on small random checkpoints."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from native_model import NativeModel
from tiny_checkpoints import VARIANTS, VOCAB, save_gguf

TARGETS = [name for name in VARIANTS if not name.startswith("assistant")]
LENGTH = 61  # several windows of 16, and not a multiple of a block


def tokens_of(seed: int, length: int = LENGTH) -> list[int]:
    return [int(token) for token in np.random.default_rng(seed).integers(3, VOCAB, length)]


def reference(model: object, tokens: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """transformers' (logits, last hidden states) for a text, float32."""
    with torch.no_grad():
        out = model(torch.tensor([tokens]), output_hidden_states=True)  # type: ignore[operator]
    return out.logits[0].float().numpy(), out.hidden_states[-1][0].float().numpy()


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("variant", TARGETS)
def test_float_path_equals_transformers(tiny, variant):
    """Float32 weights and cache: nothing is rounded, so only the order of additions differs."""
    expected_logits, expected_hidden = reference(tiny(variant).model, tokens_of(1))
    model = NativeModel(tiny(variant).folder, kv_format="float32")
    logits, hidden = model.whole(tokens_of(1))
    assert relative(hidden, expected_hidden) < 1e-4
    assert relative(logits, expected_logits) < 1e-4


@pytest.mark.parametrize("variant", TARGETS)
def test_gguf_computes_what_the_folder_computes(tiny, variant):
    one = NativeModel(tiny(variant).folder, kv_format="float32").whole(tokens_of(2))
    other = NativeModel(tiny(variant).gguf, kv_format="float32").whole(tokens_of(2))
    assert relative(other[0], one[0]) < 1e-5


def int8_activations(module: object, inputs: tuple) -> tuple:  # noqa: ARG001
    """What the kernels do to a linear input: int8 per 32 values, the largest at 127."""
    groups = inputs[0].reshape(*inputs[0].shape[:-1], -1, 32)
    scale = groups.abs().amax(-1, keepdim=True) / 127
    rounded = torch.round(groups / torch.where(scale > 0, scale, 1)) * scale
    return (rounded.reshape(inputs[0].shape),)


def rounded_model(model: object, kind: object) -> object:
    """transformers' model with quantized weights (dequantized again) and int8 activations in every linear layer."""
    import copy

    import gguf

    model = copy.deepcopy(model)
    for module in model.modules():  # type: ignore[attr-defined]
        if isinstance(module, torch.nn.Linear):
            module.register_forward_pre_hook(int8_activations)
        if isinstance(module, torch.nn.Linear | torch.nn.Embedding):
            weight = gguf.quants.dequantize(gguf.quants.quantize(module.weight.detach().numpy(), kind), kind)
            module.weight.data = torch.from_numpy(weight.astype(np.float32))
    return model


@pytest.mark.parametrize("kind", ["Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0"])
@pytest.mark.parametrize("variant", [name for name in TARGETS if name != "gemma4-moe"])
def test_quantized_path_equals_transformers_with_int8_activations(tiny, tmp_path, variant, kind):
    """Equal to float32 accuracy, except where a value rounds to the other side because additions in another order
    moved it. Short texts, since one such step is seen by every later row, and random weights blow it up."""
    import gguf

    quantization = gguf.GGMLQuantizationType[kind]
    path = save_gguf(tiny(variant).model, tmp_path / "model.gguf", quantization)
    expected_model = rounded_model(tiny(variant).model, quantization)
    model = NativeModel(path, kv_format="float32")
    errors = []
    for token in tokens_of(3, 24):
        logits, _ = model.whole([token, *tokens_of(token, 2)])
        expected, _ = reference(expected_model, [token, *tokens_of(token, 2)])
        errors += [relative(row, expected_row) for row, expected_row in zip(logits, expected, strict=True)]
    # The embedding itself goes into E2B's per-layer projection, and 4 and 5 bit values meet exact ties of int8.
    assert np.quantile(errors, 0.2) < 1e-5
    assert max(errors) < 0.2


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0"])
def test_quantized_experts_lose_only_to_int8_activations(tiny, tmp_path, kind):
    """transformers' experts are no linear modules to round in, so here the reference is our own float path, which
    equals transformers'; a token whose experts change at the margin may differ more, hence the median."""
    import gguf

    path = save_gguf(tiny("gemma4-moe").model, tmp_path / "model.gguf", gguf.GGMLQuantizationType[kind])
    exact = NativeModel(path, kv_format="float32", dequantized=True)
    found = NativeModel(path)
    errors = [relative(found.whole([token])[0], exact.whole([token])[0]) for token in tokens_of(3, 24)]
    assert np.median(errors) < 0.1


@pytest.mark.parametrize("variant", TARGETS)
def test_an_8_bit_cache_loses_what_8_bits_lose(tiny, variant):
    """Random models magnify any rounding, so float16's error is the measure: it keeps 11 bits, int8 some 7."""
    exact, half, byte = (
        NativeModel(tiny(variant).folder, kv_format=kv_format).whole(tokens_of(6))[0]
        for kv_format in ("float32", "float16", "int8")
    )
    assert relative(half, exact) < relative(byte, exact) < 40 * relative(half, exact)


@pytest.mark.parametrize("variant", TARGETS)
@pytest.mark.parametrize("chunk", [1, 7, 16, 40])
@pytest.mark.parametrize("kv_format", ["float16", "int8"])
def test_chunked_prefill_gives_the_same_bits(tiny, variant, chunk, kv_format):
    model = NativeModel(tiny(variant).folder, kv_format=kv_format)
    whole = model.whole(tokens_of(4))
    parts = model.whole(tokens_of(4), chunk=chunk)
    assert np.array_equal(whole[0], parts[0])
    assert np.array_equal(whole[1], parts[1])


@pytest.mark.parametrize("variant", TARGETS)
def test_rows_without_output_change_nothing(tiny, variant):
    """A prompt's last row alone: the rows that end at the last KV-producing layer must not be missed."""
    model = NativeModel(tiny(variant).folder)
    logits, _ = model.whole(tokens_of(5))
    last, _ = model.run(model.cache(), tokens_of(5), outputs=[LENGTH - 1])
    assert np.array_equal(last[0], logits[-1])
