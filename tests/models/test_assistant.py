"""The drafter against transformers' own, step by step through a round."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from native_model import NativeModel
from tiny_checkpoints import VARIANTS, VOCAB, make_assistant, save_folder, save_gguf

from outrider.assembly import cpu_drafter
from outrider.backends import cpu
from outrider.checkpoints import open_checkpoint
from outrider.errors import CheckpointError
from outrider.models.assistant import check_pair
from outrider.quant import WeightStore

TARGETS = [name for name in VARIANTS if name.startswith("gemma4")]


@pytest.fixture(scope="module")
def pairs(tiny, tmp_path_factory):
    """(target variant, clusters or not) -> (transformers' drafter, its folder)."""
    root = tmp_path_factory.mktemp("assistants")
    made = {}

    def get(variant, ordered):
        if (variant, ordered) not in made:
            assistant = make_assistant(tiny(variant).model.config.get_text_config(), ordered=ordered)
            made[variant, ordered] = assistant, save_folder(assistant, root / f"{variant}-{ordered}")
        return made[variant, ordered]

    return get


def recorded(target: NativeModel, target_path, path, *, kv_format="float32"):
    checkpoint = open_checkpoint(path)
    check_pair(target.config, checkpoint.config)
    pool = cpu.ThreadPool(2)
    return cpu_drafter(
        target.config,
        WeightStore(open_checkpoint(target_path).tensors, pool),
        checkpoint.config,
        WeightStore(checkpoint.tensors, pool),
        pool,
        max_rows=4,
        kv_format=kv_format,
    )


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("variant", TARGETS)
def test_a_round_equals_transformers(tiny, pairs, variant, ordered):
    """Prompts shorter than the window: beyond, what the reference lets the drafter see depends on its cache."""
    target = tiny(variant).model
    assistant, folder = pairs(variant, ordered)
    tokens = [int(t) for t in np.random.default_rng(2).integers(3, VOCAB, 14)]
    with torch.no_grad():
        out = target(torch.tensor([tokens]), output_hidden_states=True, return_shared_kv_states=True, use_cache=True)
    native = NativeModel(tiny(variant).folder, kv_format="float32")
    cache = native.cache()
    _, hidden = native.run(cache, tokens, commit=range(len(tokens)))
    drafting = recorded(native, tiny(variant).folder, folder)
    drafting.program.write(drafting.hidden, hidden[-1:])

    token = int(out.logits[0, -1].argmax())
    state = out.hidden_states[-1][:, -1:]
    for _ in range(4):
        embedding = target.get_input_embeddings()(torch.tensor([[token]]))
        with torch.no_grad():
            expected = assistant(
                inputs_embeds=torch.cat([embedding, state], -1),
                position_ids=torch.tensor([[len(tokens)]]),
                shared_kv_states=out.shared_kv_states,
            )
        found = step(drafting, cache, token)
        reference = expected.logits[0, -1].numpy()
        scored = {token for token in found if not ordered or reference[token] > reference.min()}
        assert len(scored) >= 0.7 * len(found)  # at the margin the last cluster may be another one
        for candidate, logit in ((token, found[token]) for token in scored):
            assert logit == pytest.approx(reference[candidate], rel=5e-3, abs=5e-3 * float(np.abs(reference).max()))
        assert max(found, key=found.__getitem__) == int(reference.argmax())
        state = expected.last_hidden_state
        ours = drafting.program.read(drafting.hidden, 1)[0]
        assert np.allclose(ours, state[0, -1].numpy(), rtol=5e-3, atol=5e-3 * float(state.abs().max()))
        token = int(reference.argmax())
    assert cache.length == len(tokens)


def step(drafting, cache, token) -> dict[int, float]:
    """One step for one row: token -> logit, of all tokens that were scored."""
    zero = np.zeros(1, np.int32)
    if drafting.logits is None:
        logits = np.empty((1, drafting.program.vocabulary), np.float32)
        drafting.program.run(np.array([token], np.int32), zero, zero - 1, zero, [cache], logits)
        return dict(enumerate(logits[0].tolist()))
    drafting.program.run(np.array([token], np.int32), zero, zero - 1, zero[:0], [cache], None)
    tokens = drafting.ordering[drafting.program.chosen(1, drafting.top_k)[0]].reshape(-1)
    return dict(zip(tokens.tolist(), drafting.program.read(drafting.logits, drafting.top_k).reshape(-1), strict=True))


def test_quantized_and_whole_files_draft_alike(tiny, pairs, tmp_path):
    """The GGUF form, its weights at 8 bits, scores as the folder's float32 within the rounding of both."""
    import gguf

    assistant, folder = pairs("gemma4-dense", False)
    path = save_gguf(assistant, tmp_path / "drafter.gguf", gguf.GGMLQuantizationType.Q8_0)
    native = NativeModel(tiny("gemma4-dense").folder, kv_format="float32")
    cache = native.cache()
    _, hidden = native.run(cache, list(range(10, 30)), commit=range(20))
    results = []
    for source in (folder, path):
        drafting = recorded(native, tiny("gemma4-dense").folder, source)
        drafting.program.write(drafting.hidden, hidden[-1:])
        results.append(np.array(list(step(drafting, cache, 7).values())))
    assert np.linalg.norm(results[1] - results[0]) / np.linalg.norm(results[0]) < 0.1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backbone_hidden_size": 128}, "hidden size of its target is 128, and the model's is 64"),
        ({"vocab_size": 1024}, "vocabulary is 1024, and the model's is 512"),
        ({"head_dim": 96}, "head_dim of its sliding layers is 96, and the model's is 32"),
        ({"kv_heads": 4}, "KV heads of its sliding layers is 4, and the model's is 2"),
    ],
)
def test_a_drafter_of_another_model_is_refused(tiny, pairs, change, message):
    target = open_checkpoint(tiny("gemma4-dense").folder).config
    assistant = open_checkpoint(pairs("gemma4-dense", False)[1]).config
    key, value = next(iter(change.items()))
    if key == "backbone_hidden_size":
        assistant = dataclasses.replace(assistant, backbone_hidden_size=value)
    elif key == "vocab_size":
        assistant = dataclasses.replace(assistant, text=dataclasses.replace(assistant.text, vocab_size=value))
    else:
        first = dataclasses.replace(assistant.text.layers[0], **change)
        layers = (first, *assistant.text.layers[1:])
        assistant = dataclasses.replace(assistant, text=dataclasses.replace(assistant.text, layers=layers))
    with pytest.raises(CheckpointError, match=message):
        check_pair(target, assistant)
