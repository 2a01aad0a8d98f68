"""Tokens that the checkpoint suppresses: never chosen nor drafted, with log-probabilities as transformers has them."""

from __future__ import annotations

import json
import shutil
from collections import Counter

import gguf
import numpy as np
import pytest
import torch
from json_tokenizer import speak_json
from tiny_checkpoints import VOCAB, make_assistant, save_folder, save_gguf
from word_tokenizer import save_tokenizer

from outrider import LLM, Grammar, SamplingParams
from outrider.checkpoints import open_checkpoint
from outrider.drafters.tree import Draft
from outrider.engine.scoring import logits_of, score

PROMPT = [2, *(int(token) for token in np.random.default_rng(3).integers(3, VOCAB, 30))]
LENGTH = 40


@pytest.fixture(scope="module")
def variants(tiny, tmp_path_factory):
    """(tokens never chosen, tokens not chosen first) -> a model that was loaded from a folder with these."""
    root, made = tmp_path_factory.mktemp("suppressed"), {}
    model = tiny("gemma4-softcap").model
    assistant = save_folder(make_assistant(model.config, ordered=True, seed=1), root / "drafter")

    def get(never=(), not_first=()):
        key = tuple(never), tuple(not_first)
        if key not in made:
            folder = root / f"model-{len(made)}"
            shutil.copytree(tiny("gemma4-softcap").folder, folder)
            save_tokenizer(folder, VOCAB)
            keys = {"suppress_tokens": list(never), "begin_suppress_tokens": list(not_first)}
            (folder / "generation_config.json").write_text(json.dumps(keys))
            made[key] = LLM(folder, drafter=assistant, threads=2, context=256, kv_cache_dtype="float32")
        return made[key]

    return get


@pytest.fixture(scope="module")
def common(variants):
    """The three commonest tokens of the greedy answer, and its first."""
    answer = variants().generate([PROMPT], SamplingParams(max_tokens=LENGTH, ignore_end=True))[0].token_ids
    return [token for token, _ in Counter(answer).most_common(3)], answer[0]


def test_transformers_chooses_the_same_with_the_same_probabilities(variants, common, tiny):
    never, first = common
    model = tiny("gemma4-softcap").model
    with torch.no_grad():
        expected = model.generate(
            torch.tensor([PROMPT]),
            max_new_tokens=LENGTH,
            do_sample=False,
            suppress_tokens=never,
            begin_suppress_tokens=[first],
            eos_token_id=None,
            output_scores=True,
            return_dict_in_generate=True,
        )
    params = SamplingParams(max_tokens=LENGTH, ignore_end=True, logprobs=3)
    found = variants(never, [first]).generate([PROMPT], params)[0]
    tokens = expected.sequences[0, len(PROMPT) :].tolist()
    assert list(found.token_ids) == tokens
    for ours, token, scores in zip(found.logprobs, tokens, expected.scores, strict=True):
        theirs = torch.log_softmax(scores[0], -1)
        assert ours.logprob == pytest.approx(float(theirs[token]), abs=1e-3)
        assert [value for _, value in ours.top] == pytest.approx(theirs.topk(3).values.tolist(), abs=1e-3)


REQUESTS = [
    {},
    {"logprobs": 2},
    {"temperature": 1.5},
    {"temperature": 1.0, "top_k": 5, "logprobs": 1},
    {"temperature": 0.8, "top_p": 0.9, "repetition_penalty": 1.2},
    {"presence_penalty": 1.0, "min_tokens": 10},
]


@pytest.mark.parametrize("request_", REQUESTS)
def test_drafts_obey_and_change_nothing(variants, common, request_, monkeypatch):
    never, first = common
    llm = variants(never, [first])
    planner, drafts = llm.parts.engine.planner, list[Draft]()
    propose = planner.propose

    def recorded(*given, **options):
        drafts.extend(made := propose(*given, **options))
        return made

    monkeypatch.setattr(planner, "propose", recorded)
    prompt = [*PROMPT, *never, *PROMPT[1:], *never[:1]]  # what lookup would propose
    plain, drafted = (
        llm.generate([prompt], SamplingParams(max_tokens=LENGTH, ignore_end=True, seed=9, draft=draft, **request_))[0]
        for draft in ("off", 5)
    )
    assert drafted.token_ids == plain.token_ids
    assert drafted.logprobs == plain.logprobs
    assert not set(plain.token_ids) & set(never)
    assert plain.token_ids[0] != first
    assert drafted.stats.drafted > 0
    assert not {node.token for draft in drafts for node in draft} & set(never)


def test_only_the_first_token_may_not_be_one_of_the_others(variants, common):
    _, first = common
    params = SamplingParams(max_tokens=200, temperature=2.0, seed=1, ignore_end=True)
    answers = variants([], [first]).generate([PROMPT] * 3, params)
    assert all(answer.token_ids[0] != first for answer in answers)
    whole = variants([], range(VOCAB // 2)).generate([PROMPT], params)[0].token_ids
    assert whole[0] >= VOCAB // 2
    assert min(whole) < VOCAB // 2


def test_logits_are_the_others_alone(variants, common):
    never, _ = common
    plain, masked = (logits_of(llm.parts, PROMPT) for llm in (variants(), variants(never)))
    assert np.isneginf(masked[:, never]).all()
    masked[:, never] = plain[:, never]
    np.testing.assert_array_equal(masked, plain)
    params = SamplingParams(max_tokens=LENGTH, ignore_end=True, logprobs=0)
    answer = variants(never).generate([PROMPT], params)[0]
    scores = score(variants(never).parts, [*PROMPT, *answer.token_ids])[-LENGTH:]
    assert scores == [token.logprob for token in answer.logprobs]


def test_a_grammar_takes_what_is_left(tiny, tmp_path):
    percent, hash_sign = (3 + ord(letter) for letter in "%#")  # which no other token of the vocabulary has
    path = save_gguf(
        tiny("gemma4-e2b").model,
        tmp_path / "model.gguf",
        edit=lambda writer: writer.add_array("tokenizer.ggml.suppress_tokens", [percent, hash_sign, 1 << 20]),
    )
    assert open_checkpoint(path).config.suppressed.always == (hash_sign, percent)
    llm = LLM(path, drafter=None, threads=2, context=256)
    speak_json(llm)
    for temperature in (0.0, 1.0):
        for grammar, text in ((Grammar.regex("[%#&]{3}"), "&&&"), (Grammar.regex("&[%#]"), "&")):
            params = SamplingParams(max_tokens=9, temperature=temperature, grammar=grammar, logit_bias={5: 1.0})
            for each in (params, SamplingParams(max_tokens=9, temperature=temperature, grammar=grammar)):
                answer = llm.generate([PROMPT], each)[0]
                assert (answer.text, answer.finish_reason) == (text, "stop")


def test_a_pass_is_repeated_only_where_a_suppressed_token_is_the_likeliest(variants, common):
    """Without logits: the choice comes from the kernel, whose own argmax knows no suppressed tokens."""
    target = variants(common[0]).parts.target
    for likeliest, expected in ((7, [False]), (common[0][0], [False, True])):
        runs = []

        def run(logits, likeliest=likeliest, runs=runs):
            runs.append(logits is not None)
            return np.array([likeliest], np.int32)

        assert target._choices(run, None, 1)[0] not in common[0]
        assert runs == expected


def test_a_gguf_file_and_a_folder_suppress_alike(variants, common, tiny, tmp_path):
    never = common[0]
    path = save_gguf(
        tiny("gemma4-softcap").model,
        tmp_path / "model.gguf",
        gguf.GGMLQuantizationType.F32,
        edit=lambda writer: writer.add_array("tokenizer.ggml.suppress_tokens", never),
    )
    assert open_checkpoint(path).config.suppressed == variants(never).config.suppressed
