"""The drafter that belongs to a model is found where people keep it, and never in the way."""

from __future__ import annotations

import hashlib
import shutil
import sys
from importlib import import_module
from types import SimpleNamespace

import pytest
from tiny_checkpoints import make_assistant, save_folder, save_gguf

from outrider import LLM
from outrider.checkpoints import open_checkpoint
from outrider.drafters import pairing
from outrider.drafters.pairing import find_drafter


@pytest.fixture(scope="module")
def drafter_folder(tiny, tmp_path_factory):
    text = tiny("gemma4-dense").model.config.get_text_config()
    return save_folder(make_assistant(text, ordered=True), tmp_path_factory.mktemp("drafter") / "made")


@pytest.fixture(scope="module")
def drafter_file(tiny, tmp_path_factory):
    text = tiny("gemma4-dense").model.config.get_text_config()
    return save_gguf(make_assistant(text, ordered=False), tmp_path_factory.mktemp("drafter") / "made.gguf")


def found(path):
    return find_drafter(path, path, open_checkpoint(path).config)


@pytest.mark.parametrize("name", ["mtp-model.gguf", "model-assistant-Q8_0.gguf"])
def test_beside_a_file(tiny, copy_of, drafter_file, name):
    model = copy_of(tiny("gemma4-dense").gguf)
    assert found(model).path is None
    assert "drafts come from lookup" in found(model).why
    place = model.with_name(name)
    shutil.copy(drafter_file, place)
    assert found(model).path == place
    assert found(model).why == f"{name}, beside the model"
    llm = LLM(model, threads=1, context=64)
    assert llm.drafter.path == place
    assert llm.parts.engine.planner.sources[2] == "mtp"
    for none in (None, "off", "none"):
        assert LLM(model, drafter=none, threads=1, context=64).drafter.path is None


@pytest.mark.parametrize("place", ["assistant", "../{name}-assistant", "mtp-x.gguf"])
def test_of_a_folder(tiny, copy_of, drafter_folder, drafter_file, place):
    model = copy_of(tiny("gemma4-dense").folder)
    at = (model / place.format(name=model.name)).resolve()
    if at.suffix == ".gguf":
        shutil.copy(drafter_file, at)
    else:
        shutil.copytree(drafter_folder, at)
    assert found(model).path.resolve() == at


def test_one_that_does_not_fit_is_passed_over_with_its_reason(tiny, copy_of, drafter_file):
    model = copy_of(tiny("gemma4-k-eq-v").gguf)
    shutil.copy(drafter_file, model.with_name("mtp-a.gguf"))
    model.with_name("mtp-b.gguf").write_bytes(b"GGUF, but not really")
    result = found(model)
    assert result.path is None
    assert "mtp-a.gguf: the drafter does not fit the model" in result.why
    assert "mtp-b.gguf" in result.why


@pytest.fixture
def installed(monkeypatch):
    """Installs a file as what outrider-demo-drafter brings; None: the distribution is not there."""

    def install(path):
        package = path and SimpleNamespace(DRAFTER=path)
        monkeypatch.setitem(sys.modules, "outrider_demo_drafter", package)

    return install


def test_the_demos_own(tiny, installed, drafter_file):
    model = tiny("gemma4-dense").gguf
    config = open_checkpoint(model).config
    installed(None)
    without = find_drafter("demo", model, config)
    assert without.path is None
    assert "drafts come from lookup" in without.why
    assert without.why.endswith("pip install outrider-demo-drafter")
    installed(drafter_file)
    assert find_drafter("demo", model, config).path == drafter_file
    assert find_drafter("demo", model, config).why == "made.gguf, from outrider-demo-drafter"


def test_the_demos_file_by_any_path_gets_its_drafter(tiny, copy_of, monkeypatch, tmp_path, installed, drafter_file):
    model = copy_of(tiny("gemma4-dense").gguf)
    data = model.read_bytes()
    monkeypatch.setattr(pairing, "_DEMO_BYTES", len(data))
    monkeypatch.setattr(pairing, "_DEMO_SHA256", hashlib.sha256(data).hexdigest())
    installed(None)
    assert found(model).path is None
    assert "outrider-demo-drafter" in found(model).why
    installed(drafter_file)
    assert found(model).path == drafter_file
    model.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert not pairing.is_demo(model), "of the same size, but another file"
    assert not pairing.is_demo(tmp_path)
    model.write_bytes(data + b"\0")
    assert not pairing.is_demo(model)


def test_the_package_brings_the_file_that_it_names():
    package = import_module("outrider_demo_drafter")
    assert open_checkpoint(package.DRAFTER).path == package.DRAFTER
