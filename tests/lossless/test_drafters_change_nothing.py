"""MTP drafters of every kind, good, random or broken: the answer is the target's own."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lossless.stand_in import StandInDrafter
from tiny_checkpoints import VARIANTS, VOCAB, WINDOW, make_assistant, save_folder, save_gguf

from outrider import LLM, SamplingParams
from outrider.backends.cpu import PAGE_POSITIONS
from outrider.speculation.calibration import Acceptance

TARGETS = [name for name in VARIANTS if name.startswith("gemma4")]
KINDS = ["clusters", "dense", "dense-gguf", "nan", "infinite"]


@pytest.fixture(scope="module")
def llms(tiny, tmp_path_factory, word_tokenizer):
    """(target variant, kind of drafter) -> a model with that drafter."""
    import gguf

    made: dict[tuple[str, str], LLM] = {}
    root = tmp_path_factory.mktemp("pairs")

    def drafter_of(variant, kind):
        assistant = make_assistant(tiny(variant).model.config.get_text_config(), ordered=kind == "clusters")
        if kind == "dense-gguf":
            return save_gguf(assistant, root / f"{variant}-drafter.gguf", gguf.GGMLQuantizationType.Q8_0)
        if kind == "nan":
            with torch.no_grad():
                assistant.post_projection.weight[::3] = float("nan")
        if kind == "infinite":  # logits beyond what a float32 holds
            with torch.no_grad():
                assistant.model.norm.weight.fill_(3e38)
        return save_folder(assistant, root / f"{variant}-{kind}")

    def get(variant, kind):
        if (variant, kind) not in made:
            path = root / f"{variant}.gguf"
            if not path.exists():
                save_gguf(tiny(variant).model, path, gguf.GGMLQuantizationType.Q4_0)
            made[variant, kind] = LLM(path, drafter=drafter_of(variant, kind), threads=2, context=256)
            word_tokenizer(made[variant, kind])
        return made[variant, kind]

    return get


@st.composite
def requests(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    prompt = [int(t) for t in rng.integers(3, VOCAB, draw(st.integers(1, 3 * WINDOW)))]
    params = {
        "max_tokens": draw(st.integers(1, 24)),
        "temperature": draw(st.sampled_from([0.0, 0.7, 1.5, 1e-29, 1e-308])),
        "top_k": draw(st.sampled_from([0, 5])),
        "top_p": draw(st.sampled_from([1.0, 0.8])),
        "seed": draw(st.integers(0, 2**64 - 1)),
    }
    return prompt, params


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variant", TARGETS)
@settings(max_examples=8, deadline=None)
@given(several=st.lists(requests(), min_size=1, max_size=3), draft=st.one_of(st.just("auto"), st.integers(1, 15)))
def test_a_drafter_changes_nothing(llms, variant, kind, several, draft):
    llm = llms(variant, kind)
    running = [llm.parts.engine.add(list(prompt), SamplingParams(**params, draft=draft)) for prompt, params in several]
    while not all(request.ended for request in running):
        llm.parts.engine.step()
    for request, (prompt, params) in zip(running, several, strict=True):
        plain = llm.generate([prompt], SamplingParams(**params, draft="off"))[0]
        out = request.output()
        assert (out.token_ids, out.text, out.finish_reason) == (plain.token_ids, plain.text, plain.finish_reason)


@pytest.mark.parametrize("kind", ["clusters", "dense"])
def test_a_drafter_is_really_asked(llms, kind):
    out = llms("gemma4-dense", kind).generate([[5, 9, 4, 7]], SamplingParams(max_tokens=20, draft=5, ignore_end=True))[
        0
    ]
    assert out.stats.drafted_by_source["mtp"] > 5
    assert len(out.stats.drafted_by_depth) > 1
    assert out.stats.draft_seconds > 0


def test_a_drafter_that_repeats_the_target_is_accepted(llms):
    """A stand-in that knows the answer: every draft is accepted, and a pass emits the whole draft and one more."""
    llm = llms("gemma4-e2b", "dense")
    prompt = [5, 9, 4, 7, 11]
    plain = llm.generate([prompt], SamplingParams(max_tokens=25, draft="off", ignore_end=True))[0]
    stand_in = StandInDrafter(random.Random(0), VOCAB, right=1.0)
    stand_in.know(prompt, plain.token_ids)
    own, llm.parts.engine.planner.drafters = llm.parts.engine.planner.drafters, [stand_in]
    out = llm.generate([prompt], SamplingParams(max_tokens=25, draft=4, ignore_end=True))[0]
    llm.parts.engine.planner.drafters = own
    assert out.token_ids == plain.token_ids
    assert out.stats.accepted_by_source["stand-in"] == out.stats.accepted > 12
    assert out.stats.target_passes <= 16


@pytest.mark.parametrize("kind", ["clusters", "dense"])
def test_the_batch_does_not_change_what_is_drafted(llms, kind, monkeypatch):
    """The chains of several sequences take their steps in one pass of the drafter; each gets what it would alone."""
    llm = llms("gemma4-e2b", kind)
    own = llm.parts.engine.planner.drafters
    mtp = own[0]
    llm.parts.engine.planner.drafters = [mtp]
    monkeypatch.setattr(Acceptance, "chance", lambda _self, _source, _features, guess: guess)  # nothing is learnt
    prompts = [[5, 9, 4, 7], [8] * 30, [3, 100, 44], [11, 12], [400, 1]]
    params = SamplingParams(max_tokens=14, draft=3, ignore_end=True, temperature=0.7, seed=3)
    together = llm.generate(prompts, params)
    for prompt, out in zip(prompts, together, strict=True):
        alone = llm.generate([prompt], params)[0]
        assert alone.token_ids == out.token_ids
        assert alone.stats.accepted_by_depth == out.stats.accepted_by_depth
        assert alone.stats.drafted == out.stats.drafted
    llm.parts.engine.planner.drafters = own


def test_a_drafter_that_is_never_right_is_soon_left_alone(llms, monkeypatch):
    """Its steps cost something in every pass, so one that brings nothing is asked now and then only."""
    llm = llms("gemma4-dense", "dense")
    mtp, asked = next(of for of in llm.parts.engine.planner.drafters if of.name == "mtp"), []
    monkeypatch.setattr(
        llm.parts.engine.planner, "drafters", [mtp]
    )  # without lookup there are as many passes as tokens
    step = mtp._step
    monkeypatch.setattr(mtp, "_step", lambda rows: asked.append(len(rows)) or step(rows))
    out = llm.generate([[5, 9, 4, 7]], SamplingParams(max_tokens=200, ignore_end=True))[0]
    assert out.stats.accepted_by_source.get("mtp", 0) < 20
    assert 0 < len(asked) < out.stats.target_passes / 2
    # The last hundred passes: hardly ever.
    asked.clear()
    again = llm.generate([[5, 9, 4, 7]], SamplingParams(max_tokens=200, ignore_end=True))[0]
    assert len(asked) < again.stats.target_passes / 4


def test_a_drafter_in_place_of_a_model_is_refused(llms, tiny):
    from outrider.errors import CheckpointError

    drafter = llms("gemma4-dense", "dense").drafter.path
    with pytest.raises(CheckpointError, match="is a drafter, not a model"):
        LLM(drafter)
    with pytest.raises(CheckpointError, match="is a model, not a drafter"):
        LLM(tiny("gemma4-dense").gguf, drafter=tiny("gemma4-dense").gguf)
    with pytest.raises(CheckpointError, match="does not fit the model"):
        LLM(tiny("gemma4-k-eq-v").gguf, drafter=drafter)


@pytest.mark.parametrize("first", range(PAGE_POSITIONS + WINDOW - 4, PAGE_POSITIONS + WINDOW + 2))
def test_a_page_stays_while_a_drafter_sees_its_last_position(llms, first):
    """A draft begins with the window of the last position, which reaches back one more than that of the next row."""
    llm = llms("gemma4-e2b", "dense")
    prompt = [3 + 7 * n % 500 for n in range(first)]
    plain, drafted = (
        llm.generate([prompt], SamplingParams(max_tokens=8, ignore_end=True, draft=draft, cache_prompt=False))[0]
        for draft in ("off", 2)
    )
    assert drafted.token_ids == plain.token_ids
    assert drafted.stats.drafted > 0
