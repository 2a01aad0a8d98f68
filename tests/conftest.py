"""What every test may use: tiny checkpoints that are made once per run, and copies of them to damage."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from loopback_hub import Hub
    from tiny_checkpoints import Tiny


# torch's threads spin while they wait for each other: where workers share the cores, that takes ten times the work.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shared machine may take its time: how long an example takes is no promise of ours.
settings.register_profile("outrider", deadline=None)
settings.load_profile("outrider")


@pytest.fixture(autouse=True)
def log_levels() -> Iterator[None]:
    """Commands set levels of the process's loggers; the next test finds the default."""
    yield
    for name in ("outrider", "outrider.engine"):
        logging.getLogger(name).setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Tiny]:
    """Name of a variant in tests/tiny_checkpoints.py -> its checkpoints. To be read only; `copy_of` gives a copy."""
    import tiny_checkpoints
    from transformers import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    root = tmp_path_factory.mktemp("tiny")

    @cache
    def make(variant: str) -> Tiny:
        model = tiny_checkpoints.make_model(variant)
        folder = tiny_checkpoints.save_folder(model, root / variant)
        gguf = tiny_checkpoints.save_gguf(model, root / f"{variant}.gguf")
        return tiny_checkpoints.Tiny(model, folder, gguf)

    return make


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[[Path], Path]:
    """A checkpoint's file or folder -> a copy that the test may change."""

    def copy(source: Path) -> Path:
        target = tmp_path / source.name
        return Path(shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target))

    return copy


@pytest.fixture(scope="session")
def word_tokenizer() -> Callable[[object], None]:
    """Gives an LLM with a tiny vocabulary words to speak."""
    from word_tokenizer import speak_words

    return speak_words


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A hub on loopback that the client library talks to, and an empty cache."""
    from huggingface_hub import constants
    from loopback_hub import loopback_hub

    with loopback_hub() as (running, address):
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        yield running
