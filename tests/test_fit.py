"""A model that does not fit into memory is refused before it is read, with settings that fit."""

from __future__ import annotations

import logging

import pytest
from gguf import GGMLQuantizationType as Type
from tiny_checkpoints import save_gguf

from outrider import LLM, SamplingParams, loading
from outrider.cache import cache_bytes
from outrider.checkpoints import open_checkpoint
from outrider.errors import UsageError
from outrider.fit import Footprint, Setting, check_fit, packed_bytes
from outrider.machine import Memory
from outrider.models.gemma import kv_layers
from outrider.roofline.sizes import published_size

GB = 10**9


@pytest.fixture(scope="module")
def large():
    """Gemma 4 12B in BF16."""
    size = published_size("12B", "BF16")
    return Footprint(size.config, size.tensors, size.drafter_tensors)


@pytest.fixture(scope="module")
def small():
    """The same in Q4_0."""
    size = published_size("12B", "Q4_0")
    return Footprint(size.config, size.tensors, {})


@pytest.mark.parametrize("kind", [Type.F32, Type.BF16, Type.Q8_0, Type.Q4_0, Type.Q5_1])
def test_packed_weights_take_what_was_predicted(tiny, tmp_path, kind):
    path = save_gguf(tiny("gemma4-e2b").model, tmp_path / "model.gguf", kind)
    with LLM(path, threads=1, context=64, drafter=None) as llm:
        assert llm.parts.weight_bytes == packed_bytes(open_checkpoint(path).tensors)


@pytest.mark.parametrize("to", ["q8_0", "q4_0"])
def test_so_do_those_that_are_quantized_on_load(tiny, to, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with LLM(tiny("gemma4-e2b").gguf, threads=1, context=64, drafter=None, quantize=to) as llm:
        assert llm.parts.weight_bytes == packed_bytes(open_checkpoint(tiny("gemma4-e2b").gguf).tensors, to)


def test_the_longest_context_fits_and_the_next_one_does_not(large, small):
    for footprint, available in ((large, 30 * GB), (small, 8 * GB)):
        for kv_format in ("float16", "int8"):
            longest = footprint.largest_context(available, kv_format, None)
            assert footprint.needs(Setting(longest, kv_format)).total <= available
            if longest < 262_144:
                assert footprint.needs(Setting(longest + 256, kv_format)).total > available
    assert small.largest_context(8 * GB, "float16", None) < small.largest_context(8 * GB, "int8", None) < 262_144
    assert large.largest_context(8 * GB, "int8", None) == 0
    config = published_size("12B", "Q4_0").config
    assert small.needs(Setting(1000)).cache == cache_bytes(kv_layers(config), 1000, 256, "int8")


def test_what_fits_is_not_spoken_of(small, caplog):
    check_fit("x", small, Setting(262_144), Memory(16 * GB, 0, contained=False), asked=True)
    assert not caplog.messages
    with caplog.at_level(logging.INFO, logger="outrider.loading"):
        check_fit("x", small, Setting(4096), Memory(16 * GB, 0, contained=True), asked=False)
    assert caplog.messages[0].startswith("x needs 7.")
    assert caplog.messages[0].endswith("at 4096 tokens; 16.00 GB of the container's limit are available")


def test_weights_that_do_not_fit_are_refused_with_what_does(large):
    with pytest.raises(UsageError) as caught:
        check_fit("gemma", large, Setting(262_144), Memory(16 * GB, 0, contained=False), asked=False)
    said = str(caught.value)
    assert said.startswith("gemma needs 25.")
    assert "at 4,096 tokens, and 16.00 GB are available" in said
    assert "--quantize q8_0 --context " in said
    assert said.endswith("or --quantize q4_0")
    with pytest.raises(UsageError, match="use a smaller model or one in fewer bits, or close other programs"):
        check_fit("gemma", large, Setting(262_144), Memory(2 * GB, 0, contained=False), asked=False)


def test_every_remedy_fits(large, small):
    for footprint, memory in ((large, Memory(16 * GB, 0, contained=True)), (small, Memory(8 * GB, 0, contained=True))):
        with pytest.raises(UsageError) as caught:
            check_fit("gemma", footprint, Setting(262_144), memory, asked=True)
        for remedy in str(caught.value).split(": use ")[1].split(" or "):
            words = dict(zip(remedy.split()[::2], remedy.split()[1::2], strict=True))
            context = int(words.get("--context", 262_144))
            setting = Setting(context, words.get("--kv-cache-dtype", "int8"), words.get("--quantize"))
            check_fit("gemma", footprint, setting, memory, asked=True)


def test_a_context_that_was_not_asked_for_only_warns(small, caplog):
    memory = Memory(8 * GB, 0, contained=False)
    check_fit("gemma", small, Setting(262_144, "float16"), memory, asked=False)
    (said,) = caplog.messages
    longest = small.largest_context(8 * GB, "float16", None)
    assert f"up to {longest:,} tokens fit; for longer ones use --kv-cache-dtype int8 --context " in said
    with pytest.raises(UsageError, match=f"use --context {longest} or --kv-cache-dtype int8 --context"):
        check_fit("gemma", small, Setting(262_144, "float16"), memory, asked=True)


def test_a_context_that_was_not_asked_for_is_what_fits(tiny, monkeypatch):
    """So a request without a limit of its own is not refused."""
    monkeypatch.setattr(loading, "USUAL_CONTEXT", 256)
    monkeypatch.setattr(loading, "available_bytes", lambda: 0)
    unlimited = SamplingParams(max_tokens=5000, ignore_end=True)
    with LLM(tiny("gemma3").gguf, threads=1, drafter=None) as llm:
        assert llm.context == 256
        assert len(llm.generate([[5] * 250], unlimited)[0].token_ids) == 6
        with pytest.raises(UsageError, match="no room in a context of 256: shorten it or raise context"):
            llm.generate([[5] * 256], unlimited)
    with LLM(tiny("gemma3").gguf, threads=1, drafter=None, context=1000) as llm:
        assert llm.context == 1000
        assert len(llm.generate([[5] * 990], unlimited)[0].token_ids) == 10


@pytest.mark.parametrize("swap", [10 * GB, None])
def test_swap_makes_a_warning_of_it(large, caplog, swap):
    check_fit("gemma", large, Setting(262_144), Memory(20 * GB, swap, contained=False), asked=False)
    (said,) = caplog.messages
    assert "it may be swapped out, which is slow; use --quantize" in said
