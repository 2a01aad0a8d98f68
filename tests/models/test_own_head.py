"""A head that is not the embedding: from every kind of file, whatever the flag says, as transformers computes it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from native_model import NativeModel
from safetensors.numpy import load_file, save_file
from test_assistant import recorded, step
from tiny_checkpoints import HIDDEN, VOCAB, Tiny, edit_config, make_assistant, save_folder, save_gguf

from outrider.checkpoints import open_checkpoint
from outrider.checkpoints.traffic import weight_traffic
from outrider.errors import CheckpointError

TOKENS = [int(token) for token in np.random.default_rng(7).integers(3, VOCAB, 24)]
HEAD = (np.random.default_rng(8).standard_normal((VOCAB, HIDDEN)) / 8).astype(np.float32)
Copy = Callable[[Path], Path]


def with_head(folder: Path, head: np.ndarray, *, tied: bool | None) -> Path:
    """Stores a head in a folder; `tied` is what its config says, None for nothing."""
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, "lm_head.weight": head}, folder / "model.safetensors", {"format": "pt"})
    edit_config(folder, {"tie_word_embeddings": tied})
    return folder


@pytest.mark.parametrize("tied", [True, False, None])
@pytest.mark.parametrize("variant", ["gemma3", "gemma4-softcap", "gemma4-e2b"])
def test_a_folder(variant: str, tied: bool | None, tiny: Callable[[str], Tiny], copy_of: Copy) -> None:
    folder = with_head(copy_of(tiny(variant).folder), HEAD, tied=tied)
    reference = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        expected = reference(torch.tensor([TOKENS])).logits[0].numpy()
    found, _ = NativeModel(folder, kv_format="float32").whole(TOKENS)
    np.testing.assert_allclose(found, expected, atol=1e-4 * float(np.abs(expected).max()))
    plain, _ = NativeModel(tiny(variant).folder, kv_format="float32").whole(TOKENS)
    assert np.abs(plain - expected).max() > 0.1


def test_a_gguf_file(tiny: Callable[[str], Tiny], copy_of: Copy, tmp_path: Path) -> None:
    path = save_gguf(
        tiny("gemma4-e2b").model, tmp_path / "m.gguf", edit=lambda writer: writer.add_tensor("output.weight", HEAD)
    )
    folder = with_head(copy_of(tiny("gemma4-e2b").folder), HEAD, tied=False)
    one, other = (NativeModel(source, kv_format="float32").whole(TOKENS)[0] for source in (path, folder))
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("ordered", [False, True])
def test_a_drafter(ordered: bool, tiny: Callable[[str], Tiny], tmp_path: Path) -> None:
    """The head is the drafter's own; tokens go in by the target's embedding, which its head does not replace."""
    assistant = make_assistant(tiny("gemma4-dense").model.config, ordered=ordered)
    folder = save_folder(assistant, tmp_path / "drafter")
    native = NativeModel(tiny("gemma4-dense").folder, kv_format="float32")
    cache = native.cache()
    _, hidden = native.run(cache, TOKENS, commit=range(len(TOKENS)))
    scores = []
    for head in (None, 2 * load_file(folder / "model.safetensors")["model.embed_tokens.weight"]):
        if head is not None:
            with_head(folder, head, tied=False)
        drafting = recorded(native, tiny("gemma4-dense").folder, folder)
        drafting.program.write(drafting.hidden, hidden[-1:])
        scores.append(step(drafting, cache, 7))
    assert scores[0].keys() == scores[1].keys()
    for token, logit in scores[0].items():
        assert scores[1][token] == 2 * logit


def test_its_embedding_is_gathered_not_swept(tiny: Callable[[str], Tiny], copy_of: Copy) -> None:
    tied = open_checkpoint(tiny("gemma3").folder)
    untied = open_checkpoint(with_head(copy_of(tiny("gemma3").folder), HEAD, tied=False))
    before, after = (weight_traffic(checkpoint.tensors, checkpoint.config) for checkpoint in (tied, untied))
    assert after.per_token == before.per_token
    assert (before.gathered, after.gathered) == (0, HEAD.nbytes)


def test_a_head_that_is_missing_or_does_not_fit_is_refused(tiny: Callable[[str], Tiny], copy_of: Copy) -> None:
    folder = copy_of(tiny("gemma3").folder)
    edit_config(folder, {"tie_word_embeddings": False})
    with pytest.raises(CheckpointError, match=r"lacks the tensor lm_head.weight \(512, 64\)"):
        open_checkpoint(folder)
    with pytest.raises(CheckpointError, match=r"lm_head.weight in the shape \(511, 64\)"):
        open_checkpoint(with_head(folder, HEAD[:-1], tied=True))
