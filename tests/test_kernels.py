"""Every instruction set gives the same bits as plain C++, through a whole model."""

from __future__ import annotations

import numpy as np
import pytest
from native_model import NativeModel
from tiny_checkpoints import VOCAB, save_gguf

from outrider.backends import cpu


@pytest.fixture
def instruction_set():
    """Restores the instruction set after a test that changes it."""
    before = cpu.instruction_set()
    yield cpu.choose_instruction_set
    cpu.choose_instruction_set(before)


@pytest.mark.parametrize("kind", ["F32", "BF16", "F16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0"])
@pytest.mark.parametrize("variant", ["gemma3-scaled", "gemma4-e2b", "gemma4-moe"])
def test_all_instruction_sets_give_the_same_bits(tiny, tmp_path, instruction_set, variant, kind):
    import gguf

    path = save_gguf(tiny(variant).model, tmp_path / "model.gguf", gguf.GGMLQuantizationType[kind])
    model = NativeModel(path)
    tokens = [int(token) for token in np.random.default_rng(0).integers(0, VOCAB, 45)]
    results = {}
    for name in cpu.instruction_sets():
        instruction_set(name)
        results[name] = model.whole(tokens, chunk=19)
    for name, (logits, hidden) in results.items():
        assert np.array_equal(logits, results["portable"][0]), name
        assert np.array_equal(hidden, results["portable"][1]), name


def test_an_unknown_instruction_set_is_refused():
    with pytest.raises(ValueError, match="instruction set abacus is not available here"):
        cpu.choose_instruction_set("abacus")
