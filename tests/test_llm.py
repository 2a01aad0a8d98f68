"""The public face: what vLLM's users expect, and what it says when it is used wrongly."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref

import pytest
from idle import wait_until_idle
from tiny_checkpoints import VOCAB, save_gguf
from word_tokenizer import save_tokenizer, speak_words

import outrider
from outrider import LLM, SamplingParams
from outrider.chat.template import ChatTemplate
from outrider.errors import OutriderError, UsageError

PLAIN = "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}[model]"
CALLS = PLAIN + "{# tools: <|tool_call> <|channel> #}"
PROMPTS = [[5, 9, 200, 31, 77], [2, 5, 7, 5, 7, 5], [300, 301]]


def make(tiny, folder):
    llm = LLM(save_gguf(tiny("gemma4-e2b").model, folder / "tiny.gguf"), threads=1, context=4096)
    speak_words(llm)
    llm.tokenizer.encode = lambda text, *, add_bos=True, **_: [2] * add_bos + [3 + ord(c) % 500 for c in text]
    return llm


@pytest.fixture(scope="module")
def llm(tiny, tmp_path_factory):
    return make(tiny, tmp_path_factory.mktemp("face"))


@pytest.fixture
def chat_llm(llm):
    llm.parts.prompts.template = ChatTemplate(PLAIN, bos="<bos>")
    yield llm
    llm.parts.prompts.template = None


def params(**changes):
    return SamplingParams(**{"max_tokens": 8, "ignore_end": True, "temperature": 1.0, "seed": 3} | changes)


# -- generate --------------------------------------------------------------------------------------------------------


def test_a_list_of_params_has_one_for_each_prompt(llm):
    several = [params(max_tokens=2), params(seed=9), params(temperature=0.0)]
    together = llm.generate(PROMPTS, several)
    alone = [llm.generate([p], sampling_params=one)[0] for p, one in zip(PROMPTS, several, strict=True)]
    assert [out.token_ids for out in together] == [out.token_ids for out in alone]
    assert len(together[0].token_ids) == 2


def test_n_answers_have_seeds_in_a_row(llm):
    first, second = llm.generate(PROMPTS[:2], params(n=3))
    for prompt, out in zip(PROMPTS, (first, second), strict=False):
        alone = [llm.generate([prompt], params(seed=3 + number))[0].token_ids for number in range(3)]
        assert [answer.token_ids for answer in out.outputs] == alone
        assert out.token_ids == alone[0]
    assert len(set(answer.token_ids for answer in first.outputs)) == 3
    (one,) = llm.generate(PROMPTS[:1], params())
    assert one.outputs == (one,)


def test_the_cheapest_call_there_is(llm):
    assert len(llm.generate([PROMPTS[0]], SamplingParams(max_tokens=1, ignore_end=True))[0].token_ids) == 1
    assert llm.generate([]) == []
    assert len(llm.generate(iter(["a", (5, 6)]), params())) == 2


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda llm: llm.generate("hi", {"max_tokens": 4}), "must be a SamplingParams or a list of them, not {'max_to"),
        (lambda llm: llm.generate(["hi"], [{"max_tokens": 4}]), "must be a SamplingParams or a list of them, not {"),
        (
            lambda llm: llm.generate(5),
            "must be a text, a list of texts, or a list of lists of token ids, not 5 (int)",
        ),
        (lambda llm: llm.generate(None), "a list of lists of token ids, not None"),
        (lambda llm: llm.generate([5, 6]), "prompts[0] is 5 (int) (the ids of one prompt go into a list of their own"),
        (lambda llm: llm.generate([1.5]), "prompts[0] is 1.5 (float)"),
        (lambda llm: llm.generate(["a", None]), "but prompts[1] is None"),
        (lambda llm: llm.generate(["a", []]), "prompts[1]: the prompt is empty: give it at least one token"),
        (lambda llm: llm.generate([[1.5]]), "a token id must be a whole number, not 1.5 (float)"),
        (lambda llm: llm.generate(b"hi"), "not b'hi' (bytes)"),
        (lambda llm: llm.generate([{"role": "user"}]), "pass messages to LLM.chat"),
        (lambda llm: llm.generate(["a", "b"], [params()]), "sampling_params has 1 entries for 2 prompts"),
        (lambda llm: llm.generate("a", params(stop_token_ids=[10**6])), "stop_token_ids names token 1000000, outside"),
        (lambda llm: llm.stream(5), "a prompt must be a text or a list of token ids, not 5 (int)"),
        (lambda llm: llm.stream("a", params(n=2)), "a stream has one answer: leave n at 1, not 2"),
        (lambda llm: llm.stream("a", 4), "sampling_params must be a SamplingParams or a list of them, not 4 (int)"),
        (lambda llm: llm.chat("Hello"), "messages must be a list of messages"),
        (lambda llm: llm.chat([{"content": "Hello"}]), "messages must be a list of messages"),
        (lambda llm: llm.chat([{"role": "user", "content": "Hello"}]), "is a base model without a chat template"),
        (lambda llm: llm.score(None), "prompts must be a text"),
        (
            lambda _: LLM(None),
            'model must be "demo", a path, an id of the hub or "ollama:NAME" (a str or a pathlib.Path)',
        ),
        (lambda _: LLM("demo", threads="2"), "threads must be None or a number from 1 to 256, not '2' (str)"),
        (lambda _: LLM("demo", threads=0), "threads must be None or a number from 1 to 256, not 0"),
        (lambda _: LLM("demo", context=1), "context must be None or a number of tokens from 2, not 1"),
        (lambda _: LLM("demo", drafter=3), 'drafter must be "auto", "off", None or a path, not 3 (int)'),
        (lambda _: LLM("demo", lookup="no"), "lookup must be True or False, not 'no' (str)"),
        (lambda _: LLM("demo", quantize="q2"), "quantize must be None or one of"),
    ],
)
def test_wrong_use_gets_a_sentence(llm, call, said):
    with pytest.raises(UsageError) as problem:
        call(llm)
    assert said in str(problem.value)
    wait_until_idle(llm)


# -- chat ------------------------------------------------------------------------------------------------------------


def test_a_call_without_parameters_gets_what_the_checkpoint_recommends(llm, tiny, tmp_path):
    assert llm.get_default_sampling_params() == SamplingParams()

    def edit(writer):
        writer.add_float32("general.sampling.temp", 0.9)
        writer.add_int32("general.sampling.top_k", 20)

    with LLM(save_gguf(tiny("gemma4-dense").model, tmp_path / "m.gguf", edit=edit), threads=1) as recommending:
        params = recommending.get_default_sampling_params()
        assert params == SamplingParams(temperature=0.9, top_k=20)
        found, expected, greedy = (
            recommending.generate([[2, 300, 301]], *given)[0].token_ids
            for given in ((), (params,), (SamplingParams(),))
        )
        assert found == expected != greedy
        streamed = [token for piece in recommending.stream([2, 300, 301]) for token in piece.token_ids]
        assert streamed == list(expected)


def test_a_conversation_and_a_list_of_them(chat_llm):
    one = [{"role": "user", "content": "Hello"}]
    two = [*one, {"role": "assistant", "content": "Yes"}, {"role": "user", "content": "And?"}]
    together = chat_llm.chat([one, two], params())
    assert [out.token_ids for out in together] == [chat_llm.chat(c, params())[0].token_ids for c in (one, two)]
    rendered = [2, *chat_llm.tokenizer.encode("[user]Hello[model]", add_bos=False)]
    assert list(together[0].prompt_token_ids) == rendered
    assert "".join(piece.text for piece in chat_llm.stream(one, params())) == together[0].text
    chat_llm.parts.prompts.template = ChatTemplate("{{ tools }}", bos="<bos>")
    with pytest.raises(UsageError, match="writes tools in another format"):
        chat_llm.chat(one, tools=[{"type": "function", "function": {"name": "f"}}])


def test_thoughts_and_calls_are_read_from_the_answer(chat_llm, monkeypatch):
    chat_llm.parts.prompts.template = ChatTemplate(CALLS, bos="<bos>")
    texts = {20: "<|channel>", 21: "thought\nso", 22: "<channel|>", 23: "Well.", 24: "<|tool_call>", 25: "call:f{}"}
    texts |= {26: "<tool_call|>", 27: "<|tool_response>"}
    special = {20, 22, 24, 26, 27}
    tokenizer, piece = chat_llm.tokenizer, chat_llm.tokenizer.piece

    def written(token, *, skip_special=True):
        if token not in texts:
            return piece(token)
        return b"" if skip_special and token in special else texts[token].encode()

    monkeypatch.setattr(tokenizer, "piece", written)
    monkeypatch.setattr(tokenizer, "special_tokens", lambda kept: frozenset(t for t in special if texts[t] in kept))
    answer = [*range(20, 28), 5]
    step = {token: after for token, after in zip([None, *answer], answer, strict=False)}
    target, run = chat_llm.parts.target, chat_llm.parts.target.run

    def scripted(sequences, *, logits=False):
        found = run(sequences, logits=logits)
        for rows, choices in zip(sequences, found.choices, strict=True):
            for place, row in enumerate(rows.outputs):
                choices[place] = step.get(rows.tokens[row], 20)
        return found

    monkeypatch.setattr(target, "run", scripted)
    asked = [{"role": "user", "content": "Hello"}]
    tools = [{"type": "function", "function": {"name": "f"}}]
    greedy = params(temperature=0.0, max_tokens=20)
    (out,) = chat_llm.chat(asked, greedy, tools=tools, thinking=True)
    assert (out.reasoning, out.text) == ("so", "Well.")
    assert [(call.name, call.arguments) for call in out.tool_calls] == [("f", "{}")]
    assert out.finish_reason == "stop"


# -- score -----------------------------------------------------------------------------------------------------------


def test_scores_are_the_bits_of_generates_logprobs(llm):
    (out,) = llm.generate([PROMPTS[0]], params(max_tokens=90, logprobs=0))
    text = [*PROMPTS[0], *out.token_ids]
    first, second = llm.score([text, PROMPTS[1]])
    assert len(first) == len(text) - 1
    assert first[len(PROMPTS[0]) - 1 :] == [place.logprob for place in out.logprobs]
    assert second == llm.score([PROMPTS[1]])[0]
    assert llm.score([[5]]) == [[]]
    wait_until_idle(llm)


def test_scoring_takes_its_turn_beside_generating(llm):
    text = [5 + number % 300 for number in range(200)]
    expected, answer = llm.score([text]), llm.generate([PROMPTS[0]], params(max_tokens=60))[0].token_ids
    found = []

    def score():
        found.append(llm.score([text]))

    threads = [threading.Thread(target=score) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert llm.generate([PROMPTS[0]], params(max_tokens=60))[0].token_ids == answer
    for thread in threads:
        thread.join()
    assert found == [expected] * 3


# -- close -----------------------------------------------------------------------------------------------------------


def test_a_closed_model_is_freed_and_says_so(tiny, tmp_path):
    with make(tiny, tmp_path) as llm:
        stream = llm.stream(PROMPTS[0], params(max_tokens=4000, draft="off"))
        next(stream)
        watched = [weakref.ref(part) for part in (llm.parts.engine, llm.parts.target, llm.parts.caches)]
        gc.collect()
        gc.disable()
    try:
        assert [ref() for ref in watched if ref() is not None] == []
    finally:
        gc.enable()
    with pytest.raises(OutriderError, match=r"tiny\.gguf was closed"):
        list(stream)
    for call in (lambda: llm.generate("a"), lambda: llm.stream("a"), lambda: llm.score("a"), lambda: llm.parts):
        with pytest.raises(UsageError, match=r"tiny\.gguf was closed: load it again"):
            call()
    llm.close()
    assert llm.path.name == "tiny.gguf"


def test_a_call_that_comes_while_the_model_closes_does_not_wait_for_ever(tiny, tmp_path):
    llm = make(tiny, tmp_path)
    driver = llm.parts.driver
    llm.close()
    (answer,) = driver.submit([([5, 6], params())])  # as by a thread that had its parts already
    for wait in (answer.output, lambda: driver.run(iter([]))):
        with pytest.raises(OutriderError, match="was closed"):
            wait()


def test_closing_ends_what_runs_in_other_threads(tiny, tmp_path):
    llm, problems = make(tiny, tmp_path), []

    def run():
        try:
            llm.generate([PROMPTS[0]], params(max_tokens=4000, draft="off"))
        except OutriderError as problem:
            problems.append(str(problem))

    thread, caches = threading.Thread(target=run), llm.parts.caches
    thread.start()
    while not caches.in_use:
        time.sleep(0.001)
    llm.close()
    thread.join(30)
    assert problems == ["tiny.gguf was closed while the request ran"]
    assert caches.in_use == 0


# -- asynchronous streams --------------------------------------------------------------------------------------------


async def read(llm, prompt, one):
    return [token async for piece in llm.astream(prompt, one) for token in piece.token_ids]


def test_asynchronous_streams_share_passes(llm, monkeypatch):
    expected = [list(llm.generate([prompt], params(max_tokens=30, draft="off"))[0].token_ids) for prompt in PROMPTS]
    passes, run = [], llm.parts.target.run
    monkeypatch.setattr(
        llm.parts.target, "run", lambda rows, **options: passes.append(len(rows)) or run(rows, **options)
    )

    async def main():
        return await asyncio.gather(*(read(llm, prompt, params(max_tokens=30, draft="off")) for prompt in PROMPTS))

    assert asyncio.run(main()) == expected
    assert max(passes) == len(PROMPTS)
    assert len(passes) < 60


def test_the_event_loop_stays_free(llm, monkeypatch):
    run, turns = llm.parts.target.run, 0
    monkeypatch.setattr(llm.parts.target, "run", lambda rows, **options: time.sleep(0.02) or run(rows, **options))

    async def count():
        nonlocal turns
        while True:
            await asyncio.sleep(0.001)
            turns += 1

    async def main():
        counting = asyncio.create_task(count())
        await read(llm, PROMPTS[0], params(max_tokens=10, draft="off"))
        counting.cancel()

    asyncio.run(main())
    assert turns > 20


@pytest.mark.parametrize("how", ["close", "cancel"])
def test_leaving_an_asynchronous_stream_cancels_its_request(llm, how):
    async def main():
        stream = llm.astream(PROMPTS[0], params(max_tokens=4000, draft="off"))
        if how == "cancel":
            task = asyncio.create_task(read(llm, PROMPTS[0], params(max_tokens=4000, draft="off")))
            while not llm.parts.caches.in_use:
                await asyncio.sleep(0.001)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return
        async for _ in stream:
            break
        assert llm.parts.caches.in_use == 1
        await stream.aclose()
        wait_until_idle(llm)

    asyncio.run(main())
    wait_until_idle(llm)


def test_errors_reach_the_reader(llm):
    with pytest.raises(UsageError, match="the prompt is empty"):
        asyncio.run(read(llm, [], params()))


# -- the package -----------------------------------------------------------------------------------------------------


def test_dir_shows_what_there_is():
    assert {"LLM", "SamplingParams", "RequestOutput", "Grammar", "OutriderError", "__version__"} <= set(dir(outrider))
    assert not {"importlib", "Any", "errors"} & set(dir(outrider))
    with pytest.raises(AttributeError, match="has no attribute 'LMM'"):
        outrider.LMM  # noqa: B018


def test_six_public_attributes(llm):
    attributes = {name for name in vars(llm) if not name.startswith("_")}
    assert attributes == {"path", "config", "context", "tokenizer", "drafter"}


@pytest.mark.parametrize("draft", ["off", 4])
def test_tokens_that_the_tokenizer_lacks_have_no_text(tiny, copy_of, draft):
    """Gemma 3's vision models have logits for 63 more tokens than their tokenizer has."""
    folder = copy_of(tiny("gemma3").folder)
    save_tokenizer(folder, VOCAB - 20)
    with LLM(folder, threads=1, context=128) as llm:
        params = SamplingParams(max_tokens=6, logit_bias={VOCAB - 1: 100.0}, logprobs=20, draft=draft)
        (out,) = llm.generate([[5, VOCAB - 2] * 4], params)
        assert (out.token_ids, out.text) == ((VOCAB - 1,) * 6, "")
        assert llm.tokenizer.decode([VOCAB - 1, 4]) == "a"
        with pytest.raises(UsageError, match="outside the vocabulary"):
            llm.tokenizer.decode([VOCAB])
