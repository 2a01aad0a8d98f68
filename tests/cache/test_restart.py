"""What a folder holds serves after a restart: the same bits as computed ones, and nothing else's."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import takewhile

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_adapters import adapted, save_adapter
from tiny_checkpoints import VOCAB, make_model, save_gguf

from outrider import LLM, SamplingParams
from outrider.backends import cpu
from outrider.cache.disk_nodes import decoded, encoded

PAGE = cpu.PAGE_POSITIONS
PARAMS = SamplingParams(max_tokens=6, ignore_end=True, logprobs=1, seed=1, temperature=1.0)


def tokens(count, seed=0):
    return [int(token) for token in np.random.default_rng(seed).integers(3, VOCAB, count)]


@pytest.fixture(scope="module")
def model(tiny, tmp_path_factory):
    path = tmp_path_factory.mktemp("restart") / "tiny.gguf"
    return save_gguf(tiny("gemma4-e2b").model, path, gguf.GGMLQuantizationType.Q4_0)


@pytest.fixture(scope="module")
def plain(model):
    """Without a folder, and without a prefix cache."""
    return LLM(model, threads=1, context=2048, prefix_cache_bytes=0)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "pages"


@pytest.fixture
def start(model, folder):
    """Loads the model anew, with the folder."""

    def load(path=model, **options):
        return LLM(path, **{"threads": 1, "context": 2048, "prefix_cache_dir": folder, **options})

    return load


def answer(llm, prompt, **changed):
    (output,) = llm.generate([prompt], replace(PARAMS, **changed))
    return output.token_ids, output.logprobs, output.stats.reused_tokens


def restarted(start, first, second, **options):
    """The answer to `second` of a process that finds what another computed for `first`."""
    with start(**options) as llm:
        answer(llm, first)
    with start(**options) as llm:
        return answer(llm, second)


@pytest.mark.parametrize("length", [PAGE - 1, PAGE, PAGE + 1, 2 * PAGE, 700, 1500])
@pytest.mark.parametrize("kv_format", ["int8", "float16", "float32"])
def test_the_same_prompt_is_read(start, model, length, kv_format):
    prompt = tokens(length)
    with LLM(model, threads=1, context=2048, kv_cache_dtype=kv_format, prefix_cache_bytes=0) as llm:
        expected = answer(llm, prompt)
    found = restarted(start, prompt, prompt, kv_cache_dtype=kv_format)
    assert found[:2] == expected[:2]
    assert found[2] == length - 1


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    length=st.integers(1, 900),
    share=st.floats(0, 1),
    more=st.integers(1, 300),
    chunks=st.lists(st.integers(1, 300), max_size=3),
    kept=st.sampled_from([None, 0, 200_000]),
)
def test_a_prompt_that_leaves_it_anywhere(start, plain, tmp_path_factory, length, share, more, chunks, kept):
    """Whatever was computed before in this process or an earlier one, and had to leave memory meanwhile."""
    folder = tmp_path_factory.mktemp("folder") / "pages"
    options = {"prefix_cache_dir": folder, "prefix_cache_bytes": kept}
    first = tokens(length)
    at = int(share * length)
    second = [*first[:at], *tokens(more, seed=1)]
    with start(**options) as llm:
        for count in chunks:
            answer(llm, first[:count])
        answer(llm, first)
    with start(**options) as llm:
        for count in chunks:
            answer(llm, [*second[:count], 5])
        found = answer(llm, second)
    assert found[:2] == answer(plain, second)[:2]
    common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))
    if not chunks and common >= 16:
        assert found[2] >= min(common, len(second) - 1) - 16


def test_pages_from_disk_are_those_of_memory(start):
    prompt, found = tokens(900), []
    for _ in range(2):
        with start() as llm:
            answer(llm, prompt)
            whole = [node for node in llm.parts.caches.tree if len(node.rows) == PAGE]
            found.append({node.key: [page and page.data.tobytes() for page in node.pages] for node in whole})
    assert len(found[0]) == 900 // PAGE
    assert found[1] == found[0]


def test_nothing_of_a_request_without_the_cache_is_in_what_follows_it(start, folder):
    """In the memory of its pages, of which a later request fills a part."""
    short, plainly = tokens(20, seed=1), {"draft": "off"}  # rejected drafts leave bytes too, the request's own
    with start() as llm:
        alone = answer(llm, short, **plainly)
    kept = {path.name: path.read_bytes() for path in folder.iterdir()}
    shutil.rmtree(folder)
    with start() as llm:
        answer(llm, tokens(900), cache_prompt=False)
        assert answer(llm, short, **plainly) == alone
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == kept


def test_what_leaves_memory_is_read_again_in_the_same_process(start, plain):
    prompt, other = tokens(700), tokens(800, seed=1)
    with start(prefix_cache_bytes=1) as llm:
        answer(llm, prompt)
        llm.parts.caches.tree.store._writer._jobs.put(None)  # the thread writes what waits, and ends
        llm.parts.caches.tree.store._writer._thread.join()
        answer(llm, other)
        found = answer(llm, prompt)
    assert found[:2] == answer(plain, prompt)[:2]
    assert found[2] == 699


def test_a_request_without_the_cache_leaves_nothing_and_takes_nothing(start, plain, folder):
    prompt = tokens(700)
    with start() as llm:
        answer(llm, prompt, cache_prompt=False)
        llm.score([prompt])
    assert list(folder.iterdir()) == []
    with start() as llm:
        answer(llm, prompt)
    before = sorted(folder.iterdir())
    assert before
    with start() as llm:
        found = answer(llm, prompt, cache_prompt=False)
    assert found[2] == 0
    assert found[:2] == answer(plain, prompt)[:2]
    assert sorted(folder.iterdir()) == before


def test_salts_are_kept_apart_and_are_not_in_the_folder(start, folder):
    prompt = tokens(300)
    with start() as llm:
        answer(llm, prompt, cache_salt="a very secret salt")
    with start() as llm:
        assert [answer(llm, prompt, cache_salt=salt)[2] for salt in ("", "another")] == [0, 0]
        assert answer(llm, prompt, cache_salt="a very secret salt")[2] == 299
    for path in folder.iterdir():
        assert b"secret" not in path.name.encode() + path.read_bytes()


def test_another_format_of_the_cache_finds_nothing(start, plain):
    prompt = tokens(300)
    assert restarted(start, prompt, prompt)[2] == 299
    with start(kv_cache_dtype="float16") as llm:
        assert answer(llm, prompt)[2] == 0
    with start() as llm:
        found = answer(llm, prompt)
    assert found[2] == 299
    assert found[:2] == answer(plain, prompt)[:2]


def test_other_weights_find_nothing_and_the_same_ones_by_another_name_do(start, tmp_path, model):
    prompt = tokens(300)
    with start() as llm:
        answer(llm, prompt)
    other = save_gguf(make_model("gemma4-e2b", seed=9), tmp_path / "tiny.gguf", gguf.GGMLQuantizationType.Q4_0)
    with start(other) as llm:
        assert answer(llm, prompt)[2] == 0
    with start(shutil.copy(model, tmp_path / "renamed.gguf")) as llm:
        assert answer(llm, prompt)[2] == 299


def test_weights_that_are_quantized_on_load_are_others(start, tiny):
    prompt, path = tokens(300), tiny("gemma3").gguf
    with start(path) as llm:
        answer(llm, prompt)
    for quantize in ("q8_0", "q4_0"):
        with start(path, quantize=quantize) as llm:
            assert answer(llm, prompt)[2] == 0


def test_an_adapter_is_bound_by_its_content(start, tiny, tmp_path):
    model, prompt = tiny("gemma4-e2b").model, tokens(300)
    one, two = (save_adapter(adapted(model, seed=seed), tmp_path / f"adapter{seed}") for seed in (1, 2))
    with start(lora={"name": one}) as llm:
        answer(llm, prompt, lora="name")
        expected = answer(llm, prompt, lora="name")
    with start(lora={"name": two}) as llm:
        assert answer(llm, prompt, lora="name")[2] == 0
    with start(lora={"name": shutil.copytree(one, tmp_path / "elsewhere")}) as llm:
        assert answer(llm, prompt)[2] == 0
        assert answer(llm, prompt, lora="name") == expected


def test_a_later_arithmetic_finds_nothing(start, monkeypatch):
    prompt = tokens(300)
    with start() as llm:
        answer(llm, prompt)
    monkeypatch.setattr("outrider.cache.identity.ARITHMETIC", "later")
    with start() as llm:
        assert answer(llm, prompt)[2] == 0


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_folder_changes_no_token(start, plain, tmp_path_factory, data, caplog):
    folder, prompt = tmp_path_factory.mktemp("damaged") / "pages", tokens(700)
    with start(prefix_cache_dir=folder) as llm:
        answer(llm, prompt)
    whole = {path: path.read_bytes() for path in sorted(folder.iterdir())}
    chosen = data.draw(st.lists(st.sampled_from(list(whole)), min_size=1, unique=True))
    for path in chosen:
        content = bytearray(whole[path])
        kind = data.draw(st.sampled_from(["cut", "flip", "remove", "swap"]))
        at = data.draw(st.integers(0, len(content) - 1))
        if kind == "cut":
            path.write_bytes(content[:at])
        elif kind == "flip":
            content[at] ^= 1 << data.draw(st.integers(0, 7))
            path.write_bytes(content)
        elif kind == "remove":
            path.unlink()
        else:
            path.write_bytes(data.draw(st.sampled_from(list(whole.values()))))
    caplog.clear()
    with caplog.at_level(logging.WARNING, "outrider.cache"), start(prefix_cache_dir=folder) as llm:
        found = answer(llm, prompt)
    assert found[:2] == answer(plain, prompt)[:2]
    assert len({record.getMessage() for record in caplog.records}) == len(caplog.records) <= len(chosen)


def test_two_models_in_one_process_share_a_folder(start, plain):
    prompt, others = tokens(700), [tokens(500, seed=seed) for seed in range(1, 4)]
    with start() as one, start() as two:
        answer(one, prompt)
        one.close()
        assert answer(two, prompt)[2] == 700 // PAGE * PAGE  # of a page that is not full, it hears later
        for other in others:
            assert answer(two, other)[:2] == answer(plain, other)[:2]
        assert answer(two, prompt)[:2] == answer(plain, prompt)[:2]


WORKER = """
import sys
from outrider import LLM, SamplingParams
llm = LLM(sys.argv[1], threads=1, context=2048, prefix_cache_dir=sys.argv[2], prefix_cache_bytes=300_000)
for n in range(6):
    out, = llm.generate([[3 + (7 * i + n % 3) % 300 for i in range(100 + 60 * n)]], SamplingParams(max_tokens=4))
    print(out.token_ids)
"""


def test_processes_share_a_folder(model, folder, tmp_path):
    """Neither of which closes its model."""

    def started(where):
        command = [sys.executable, "-c", WORKER, str(model), str(where)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    alone = started(tmp_path / "other").communicate()
    both = [started(folder) for _ in range(2)]
    assert [process.communicate() for process in both] == [alone] * 2
    assert alone[1] == b""
    assert started(folder).communicate() == alone
    assert len(list(folder.iterdir())) > 4


def test_a_forked_child_reads_and_leaves_the_folder_alone(start, folder):
    prompt, other = tokens(300), tokens(300, seed=1)
    with start() as llm:
        answer(llm, prompt)
    with start() as llm:
        before = sorted(folder.iterdir())
        child = os.fork()
        if child == 0:
            code = 1
            try:
                code = int(answer(llm, prompt)[2] != 299 or answer(llm, other)[2] != 0)
                llm.close()
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert sorted(folder.iterdir()) == before
        assert answer(llm, prompt)[2] == 299


def test_the_folder_keeps_its_limit(start, folder):
    least = 3_000_000
    with start(prefix_cache_disk=least) as llm:
        for seed in range(20):
            answer(llm, tokens(1000, seed))
    used = sum(path.stat().st_size for path in folder.iterdir())
    assert least / 2 < used <= least


ROWS = st.one_of(
    st.integers(0, 2**31 - 1),
    st.tuples(st.integers(0, 9), st.binary(max_size=40), st.integers(0, 999), st.integers(1, 999)),
)


@given(st.lists(ROWS, max_size=128).map(tuple))
def test_rows_come_back(rows):
    assert decoded(encoded(rows)) == rows


NESTED = st.recursive(st.none() | st.integers() | st.text(), st.lists)


@given(st.one_of(st.binary(), NESTED.map(json.dumps).map(str.encode)))
def test_no_note_is_an_error(note):
    found = decoded(note)
    assert found is None or isinstance(found, tuple)
