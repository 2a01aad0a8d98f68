"""Requests of any adapters share passes: each is answered as if it were alone, and nothing of one gets into another."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_adapters import adapted, merged, save_adapter, save_gguf_adapter
from tiny_checkpoints import VARIANTS, VOCAB, WINDOW, make_assistant, save_folder, save_gguf

from outrider import LLM, SamplingParams
from outrider.engine.scoring import logits_of
from outrider.engine.target import Rows, chain
from outrider.errors import UsageError

NAMES = (None, "one", "two", "half")
TARGETS = tuple(VARIANTS)


@pytest.fixture(scope="module")
def adapters(tiny, tmp_path_factory):
    """Variant -> PEFT models by name: of everything linear, of another rank, of a few matrices."""
    made, root = {}, tmp_path_factory.mktemp("adapters")

    def get(variant):
        if variant not in made:
            model = tiny(variant).model
            models = {
                "one": adapted(model, seed=1),
                "two": adapted(model, seed=2, r=20, use_rslora=True),
                "half": adapted(model, seed=3, target_modules=["q_proj", "down_proj"], layers_to_transform=[0, 3]),
            }
            paths = {name: save_adapter(one, root / f"{variant}-{name}") for name, one in models.items()}
            made[variant] = models, paths
        return made[variant]

    return get


@pytest.fixture(scope="module")
def llms(tiny, adapters, tmp_path_factory):
    """(variant, format, threads) -> a model with these adapters, drafting by lookup and MTP."""
    made, root = {}, tmp_path_factory.mktemp("adapted")

    def get(variant, kind="Q4_0", threads=2, **options):
        key = (variant, kind, threads, *options.items())
        if key not in made:
            path = root / f"{variant}-{kind}.gguf"
            if not path.exists():
                save_gguf(tiny(variant).model, path, gguf.GGMLQuantizationType[kind])
            drafter = None
            if variant == "gemma4-e2b":
                drafter = root / "drafter"
                if not drafter.exists():
                    text = tiny(variant).model.config.get_text_config()
                    save_folder(make_assistant(text, ordered=False, seed=1), drafter)
            made[key] = LLM(
                path,
                drafter=drafter,
                threads=threads,
                context=256,
                lora=adapters(variant)[1],
                progress=False,
                **options,
            )
        return made[key]

    return get


def tokens_of(seed: int, count: int = 3 * WINDOW) -> list[int]:
    return [int(token) for token in np.random.default_rng(seed).integers(3, VOCAB, count)]


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("variant", TARGETS)
def test_logits_are_those_of_the_merged_model(llms, adapters, tiny, variant):
    llm, ids = llms(variant, "F32", kv_cache_dtype="float32"), tokens_of(1)
    models = {None: tiny(variant).model, **{name: merged(one) for name, one in adapters(variant)[0].items()}}
    logits = {}
    for name, model in models.items():
        with torch.no_grad():
            expected = model(torch.tensor([ids])).logits[0].numpy()
        logits[name] = logits_of(llm.parts, ids, lora=name)
        assert relative(logits[name], expected) < 1e-4
    assert all(relative(logits[name], logits[None]) > 0.01 for name in models if name)  # each does something


@pytest.mark.parametrize("variant", ["gemma3", "gemma4-e2b"])
def test_tokens_are_those_of_the_merged_model(llms, adapters, tmp_path, variant):
    """Greedy, wherever the merged model's top two are not equal to rounding."""
    llm, model = llms(variant, "F32", kv_cache_dtype="float32"), merged(adapters(variant)[0]["two"])
    other = LLM(save_gguf(model, tmp_path / "merged.gguf"), drafter=None, kv_cache_dtype="float32", progress=False)
    prompt, params = tokens_of(2, 20), {"max_tokens": 60, "ignore_end": True}
    found = llm.generate([prompt], SamplingParams(**params, lora="two"))[0].token_ids
    logits = logits_of(other.parts, [*prompt, *found])[len(prompt) - 1 : -1]
    best, second = np.sort(logits, axis=1)[:, -1], np.sort(logits, axis=1)[:, -2]
    clear = best - second > 1e-3 * np.abs(logits).max(axis=1)
    assert clear.sum() > 40
    assert np.array_equal(np.argmax(logits, axis=1)[clear], np.array(found)[clear])


@pytest.mark.parametrize("variant", ["gemma3", "gemma4-e2b"])
def test_a_gguf_adapter_computes_what_the_folder_computes(adapters, tiny, tmp_path, variant):
    path = save_gguf_adapter(adapters(variant)[0]["one"], tmp_path / "one.gguf")
    llm = LLM(tiny(variant).gguf, drafter=None, lora={"file": path, "folder": adapters(variant)[1]["one"]}, threads=1)
    found = [logits_of(llm.parts, tokens_of(3), lora=name) for name in ("file", "folder")]
    assert np.array_equal(found[0], found[1])


@pytest.mark.parametrize("variant", TARGETS)
@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    loras=st.lists(st.sampled_from(NAMES), min_size=2, max_size=6),
    context=st.integers(1, 2 * WINDOW),
)
def test_rows_of_one_pass_do_not_see_each_others_adapter(llms, variant, seed, loras, context):
    """Prompts and drafts of several adapters in a pass: the bits of each pass alone."""
    llm = llms(variant)
    target, caches, rng = llm.parts.target, llm.parts.caches, np.random.default_rng(seed)
    prompt, drafts = tokens_of(seed, context), [tokens_of(seed + i, int(rng.integers(1, 7))) for i in range(len(loras))]

    def rows(number):
        cache, tokens = caches.new(), drafts[number]
        target.run([chain(cache, prompt, [context - 1], loras[number])])
        cache.commit(np.arange(context, dtype=np.int32))
        parents = [-1, *(int(np.random.default_rng(seed + row).integers(-1, row)) for row in range(1, len(tokens)))]
        wanted = list(range(int(rng.integers(0, len(tokens))), len(tokens)))
        return Rows(cache, list(tokens), parents, wanted, lora=loras[number])

    alone, all_rows = [], [rows(number) for number in range(len(loras))]
    for one in all_rows:
        (logits,) = target.run([one], logits=True).logits
        alone.append((logits.copy(), target.hidden(len(one.outputs))))
    together = [logits.copy() for logits in target.run(all_rows, logits=True).logits]
    hidden = np.split(target.hidden(sum(map(len, together))), np.cumsum([len(part) for part in together])[:-1])
    for one, both, states in zip(alone, together, hidden, strict=True):
        assert np.array_equal(one[0], both)
        assert np.array_equal(one[1], states)


@pytest.mark.parametrize("variant", ["gemma3", "gemma4-e2b", "gemma4-moe"])
def test_threads_and_chunks_do_not_change_a_bit(llms, variant):
    expected = logits_of(llms(variant, threads=1).parts, tokens_of(4), lora="two")
    for threads in (2, 3):
        assert np.array_equal(
            logits_of(llms(variant, threads=threads).parts, tokens_of(4), chunk=13, lora="two"), expected
        )


@pytest.mark.parametrize("variant", ["gemma3", "gemma4-e2b"])
def test_a_request_without_adapter_is_that_of_a_model_without(llms, variant):
    llm = llms(variant)
    plain = LLM(llm.path, drafter=None, threads=1, progress=False)
    assert np.array_equal(logits_of(plain.parts, tokens_of(5)), logits_of(llm.parts, tokens_of(5)))
    assert plain.score([tokens_of(5)]) == llm.score([tokens_of(5)])
    assert llm.score([tokens_of(5)], lora="one") != llm.score([tokens_of(5)])


@pytest.mark.parametrize("variant", TARGETS)
@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), loras=st.lists(st.sampled_from(NAMES), min_size=2, max_size=5))
def test_a_batch_of_adapters_gives_each_its_own_answer(llms, variant, seed, loras):
    """With drafts and prefixes that could be reused, the same prompt for all: each as alone without any of it."""
    llm, rng = llms(variant), np.random.default_rng(seed)
    motif = tokens_of(seed, int(rng.integers(2, 9)))
    prompt = (motif * 12)[: int(rng.integers(5, 60))]
    given = {"max_tokens": 24, "temperature": float(rng.choice([0.0, 0.8])), "seed": seed, "logprobs": 1}
    alone = [SamplingParams(**given, lora=lora, draft="off", cache_prompt=False) for lora in loras]
    expected = [llm.generate([prompt], params)[0] for params in alone]
    found = llm.generate([prompt] * len(loras), [SamplingParams(**given, lora=lora, draft=6) for lora in loras])
    again = llm.generate([prompt] * len(loras), [SamplingParams(**given, lora=lora) for lora in loras])
    for plain, one, other in zip(expected, found, again, strict=True):
        assert one.token_ids == plain.token_ids == other.token_ids
        assert one.logprobs == plain.logprobs == other.logprobs


def test_drafts_are_made_and_accepted_for_adapted_requests(llms):
    """That the tests above test something."""
    params = SamplingParams(max_tokens=40, draft=4, ignore_end=True, lora="half")
    out = llms("gemma3").generate([[5, 6, 7, 8] * 12], params)[0]
    assert out.stats.accepted > 0


@pytest.mark.parametrize("first", NAMES)
def test_no_prefix_crosses_adapters(llms, first):
    """The same prompt, another adapter: nothing is reused, and nothing of the first answer is in the second."""
    llm, prompt = llms("gemma4-e2b"), tokens_of(6, 40)
    llm.parts.caches.clear()
    params = {"max_tokens": 5, "ignore_end": True, "logprobs": 1}
    fresh = {}
    for name in NAMES:
        plain = SamplingParams(**params, lora=name, cache_prompt=False)
        fresh[name] = llm.generate([prompt], plain)[0]
    llm.generate([prompt], SamplingParams(**params, lora=first))
    for name in NAMES:
        out = llm.generate([prompt], SamplingParams(**params, lora=name, cache_salt=""))[0]
        assert (out.stats.reused_tokens > 0) == (name == first)
        assert (out.token_ids, out.logprobs) == (fresh[name].token_ids, fresh[name].logprobs)


def test_no_salt_can_name_another_adapters_prefix(llms):
    llm, prompt = llms("gemma4-e2b"), tokens_of(7, 40)
    llm.generate([prompt], SamplingParams(max_tokens=2, lora="one"))
    for salt in ("one", ":one", "one:", "('', 'one')", "Scope(salt='', lora='one')", "\0one"):
        out = llm.generate([prompt], SamplingParams(max_tokens=2, cache_salt=salt))[0]
        assert out.stats.reused_tokens == 0


def test_no_history_crosses_adapters(llms):
    llm, prompt = llms("gemma3", lookup_history=4096), tokens_of(8, 60)
    llm.generate([prompt], SamplingParams(max_tokens=1, lora="one"))

    def from_history(lora):
        """Tokens drafted after a part of that prompt, in which no two tokens come twice."""
        request = llm.parts.engine.add(prompt[10:30], SamplingParams(max_tokens=9, draft=6, lora=lora))
        (draft,) = llm.parts.engine.planner.propose([request.state])
        llm.parts.engine.cancel(request)
        return len(draft)

    assert from_history("two") == 0
    assert from_history(None) == 0
    assert from_history("one") > 0


def test_no_learned_chance_crosses_adapters(llms):
    llm = llms("gemma3")
    calibrations = llm.parts.engine.planner.calibrations
    calibrations.clear()
    params = SamplingParams(max_tokens=12, draft=3, ignore_end=True, lora="one")
    llm.generate([[5, 6, 7, 8] * 12], params)
    assert set(calibrations) == {"one"}
    assert calibrations["one"]._counts


def test_an_unknown_adapter_is_refused(llms):
    llm = llms("gemma3")
    for call in (
        lambda: llm.generate([[5]], SamplingParams(lora="three")),
        lambda: llm.stream([5], SamplingParams(lora="three")),
        lambda: llm.score([[5, 6]], lora="three"),
    ):
        with pytest.raises(UsageError, match="no adapter 'three': the model has one, two, half"):
            call()
    with pytest.raises(UsageError, match="lora must be the name"):
        SamplingParams(lora=3)


@pytest.mark.parametrize("lora", [3, ["sql"], {"sql": 3}, {"": "x"}, {3: "x"}])
def test_adapters_are_names_and_paths(tiny, lora):
    with pytest.raises(UsageError, match="lora must be a path, or a dict of names and paths"):
        LLM(tiny("gemma3").gguf, lora=lora)


def test_an_adapter_may_have_a_drafter_of_its_own(llms, adapters, tiny, tmp_path):
    """Requests of that adapter draft with it, all others with the model's or without; the tokens are the same."""
    text, path = tiny("gemma4-e2b").model.config.get_text_config(), llms("gemma4-e2b").path
    own, other = (
        save_folder(make_assistant(text, ordered=ordered, seed=2), tmp_path / str(ordered)) for ordered in (True, False)
    )
    given = {"lookup": False, "lora": adapters("gemma4-e2b")[1], "lora_drafters": {"one": own}, "progress": False}
    prompts, answers = [tokens_of(9, 20)] * len(NAMES), []
    for drafter, drafting in ((None, {"one"}), (other, set(NAMES))):
        with LLM(path, drafter=drafter, **given) as llm:
            params = [SamplingParams(max_tokens=12, ignore_end=True, draft=3, lora=name) for name in NAMES]
            outs = llm.generate(prompts, params)
        answers.append([out.token_ids for out in outs])
        assert {name for name, out in zip(NAMES, outs, strict=True) if out.stats.drafted_by_source} == drafting
    assert answers[0] == answers[1]
    plain = [SamplingParams(max_tokens=12, ignore_end=True, draft="off", lora=name) for name in NAMES]
    assert answers[0] == [out.token_ids for out in llms("gemma4-e2b").generate(prompts, plain)]
    with pytest.raises(UsageError, match="no adapter 'three' for its drafter"):
        LLM(path, **given | {"lora_drafters": {"three": own}})
