"""Every published Gemma 4 size, from every source: loads, finds its drafter, drafts, and says what it says undrafted.

With OUTRIDER_TRUE_SHAPES=1 the layers have their true shapes (some minutes and 8 GB of disk), else an eighth of them.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from loopback_hub import Hub
from sized_checkpoints import SIZES, VOCABULARY, Sized, make_size

from outrider import LLM, SamplingParams

SHRINK = 1 if os.environ.get("OUTRIDER_TRUE_SHAPES") else 8
PROMPT = [2, *((7 * i * i + 3 * i) % (VOCABULARY - 300) + 270 for i in range(40))]


@pytest.fixture(scope="module", params=SIZES)
def size(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def sized(size: str, tmp_path_factory: pytest.TempPathFactory) -> Sized:
    return make_size(size, tmp_path_factory.mktemp(size), shrink=SHRINK)


def check(llm: LLM, word: str) -> None:
    assert word in llm.drafter.why
    assert llm.drafter.path is not None
    for temperature in (0.0, 0.9):
        plain, drafted = (
            llm.generate([PROMPT], SamplingParams(max_tokens=24, temperature=temperature, seed=5, draft=draft))[0]
            for draft in ("off", 4)
        )
        assert plain.token_ids == drafted.token_ids
        assert drafted.stats.drafted > 0
        assert plain.stats.drafted == 0


def test_a_folder(size: str, sized: Sized) -> None:
    check(LLM(sized.safetensors / f"gemma-4-{size}-it", lookup=False, context=512), "beside the model")


def test_a_folder_quantized(size: str, sized: Sized, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = sized.safetensors / f"gemma-4-{size}-it"
    llm = LLM(folder, lookup=False, context=512, quantize="q4_0")
    assert llm.parts.packed is not None
    assert 0.05 < llm.parts.packed.error < 0.12
    check(llm, "beside the model")


def test_a_split_gguf(sized: Sized) -> None:
    check(LLM(sized.part, lookup=False, context=512), "beside the model")


def test_the_hub(size: str, sized: Sized, hub: Hub) -> None:
    for folder in sized.safetensors.iterdir():
        hub.repositories[f"google/{folder.name}"] = folder
    hub.repositories["someone/ggufs"] = sized.gguf
    check(LLM(f"google/gemma-4-{size}-it", lookup=False, context=512), "from the hub")
    check(LLM("someone/ggufs:Q4_0", lookup=False, context=512), "beside the model")
    assert "model-00001-of-00002.safetensors" in hub.sent
