"""Checkpoints by hub id, from a hub on loopback that has the real one's routes and some of its faults."""

from __future__ import annotations

import shutil

import gguf
import huggingface_hub.constants
import pytest
from tiny_checkpoints import make_assistant, save_folder, save_gguf

from outrider.checkpoints import open_checkpoint
from outrider.checkpoints.hub import HubId, parse_hub_id
from outrider.drafters.pairing import find_drafter
from outrider.errors import CheckpointError


@pytest.fixture
def repository(tiny, copy_of):
    """A folder as published: the weights, what belongs to them, and what nobody needs here."""
    folder = copy_of(tiny("gemma4-e2b").folder)
    (folder / "README.md").write_text("card")
    (folder / "model.onnx").write_bytes(b"x" * 1000)
    return folder


def test_only_what_is_needed_is_fetched(hub, repository):
    hub.repositories["org/tiny-it"] = repository
    checkpoint = open_checkpoint("org/tiny-it")
    assert checkpoint.config.vocab_size == 512
    assert "model.safetensors" in hub.sent
    assert "model.onnx" not in hub.sent
    assert "README.md" not in hub.sent
    sent = dict(hub.sent)
    open_checkpoint("org/tiny-it@main")
    assert hub.sent == sent  # the second time comes from the cache


def test_a_cut_connection_is_taken_up_where_it_broke(hub, repository, monkeypatch):
    # A chunk that was not complete is fetched again; the file here is smaller than one.
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 1 << 16)
    hub.repositories["org/tiny"] = repository
    size = (repository / "model.safetensors").stat().st_size
    hub.cut["model.safetensors"] = size // 2
    try:
        checkpoint = open_checkpoint("org/tiny")
    except CheckpointError:  # the library gave up; a person tries again
        checkpoint = open_checkpoint("org/tiny")
    assert hub.ranges
    assert hub.sent["model.safetensors"] < 1.2 * size
    whole = open_checkpoint(repository)
    for name, tensor in whole.tensors.items():
        assert (checkpoint.tensors[name].data == tensor.data).all()


@pytest.mark.parametrize("which", ["", ":Q8_0", ":q4_0"])
def test_gguf_repositories(hub, tiny, tmp_path, which):
    folder = tmp_path / "files"
    folder.mkdir()
    model = tiny("gemma4-dense").model
    for kind in ("Q4_0", "Q8_0"):
        save_gguf(model, folder / f"tiny-{kind}.gguf", gguf.GGMLQuantizationType[kind])
    (folder / "mmproj-tiny.gguf").write_bytes(b"an image encoder")
    hub.repositories["org/tiny-GGUF"] = folder
    checkpoint = open_checkpoint(f"org/tiny-GGUF{which}")
    expected = "Q8_0" if "8" in which else "Q4_0"
    assert checkpoint.path.name == f"tiny-{expected}.gguf"
    assert list(hub.sent) == [f"tiny-{expected}.gguf"]


@pytest.mark.parametrize("drafter", ["MTP/tiny-Q8_0-MTP.gguf", "mtp-tiny.gguf", "tiny-assistant-Q8_0.gguf"])
@pytest.mark.parametrize("projector", ["tiny-mmproj-F16.gguf", "mmproj-Q8_0.gguf"])
def test_drafters_and_projectors_are_recognized(hub, tiny, tmp_path, drafter, projector):
    folder = tmp_path / "files"
    (folder / drafter).parent.mkdir(parents=True)
    model = tiny("gemma4-e2b").model
    save_gguf(model, folder / "tiny-Q8_0.gguf", gguf.GGMLQuantizationType.Q8_0)
    save_gguf(make_assistant(model.config.get_text_config(), ordered=False), folder / drafter)
    (folder / projector).write_bytes(b"an image encoder")
    (folder / "tiny-imatrix.gguf").write_bytes(b"an importance matrix")
    hub.repositories["org/tiny-GGUF"] = folder
    for source in ("org/tiny-GGUF:Q8_0", "org/tiny-GGUF"):
        checkpoint = open_checkpoint(source)
        assert checkpoint.path.name == "tiny-Q8_0.gguf"
        assert set(hub.sent) == {"tiny-Q8_0.gguf", drafter}
        found = find_drafter(source, checkpoint.path, checkpoint.config)
        assert found.path == checkpoint.path.parent / drafter
    assert open_checkpoint(f"org/tiny-GGUF:{drafter.split('/')[-1]}").path == checkpoint.path.parent / drafter


def test_one_drafter_of_several_is_fetched_and_none_beside_a_drafter(hub, tiny, tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    model = tiny("gemma4-e2b").model
    made = make_assistant(model.config.get_text_config(), ordered=False)
    for kind in ("F16", "Q8_0"):
        save_gguf(made, folder / f"mtp-{kind}.gguf", gguf.GGMLQuantizationType[kind])
    hub.repositories["org/drafters"] = folder
    assert open_checkpoint("org/drafters").path.name == "mtp-Q8_0.gguf"
    assert list(hub.sent) == ["mtp-Q8_0.gguf"]
    save_gguf(model, folder / "tiny-F16.gguf", gguf.GGMLQuantizationType.F16)
    hub.repositories["org/both"] = folder
    hub.sent.clear()
    open_checkpoint("org/both:F16")
    assert set(hub.sent) == {"tiny-F16.gguf", "mtp-F16.gguf"}


def test_a_drafter_beside_it_on_the_hub_is_found(hub, tiny, repository, tmp_path):
    hub.repositories["org/tiny-it"] = repository
    text = tiny("gemma4-e2b").model.config.get_text_config()
    checkpoint = open_checkpoint("org/tiny-it")
    assert find_drafter("org/tiny-it", checkpoint.path, checkpoint.config).path is None
    hub.repositories["org/tiny-it-assistant"] = save_folder(make_assistant(text, ordered=True), tmp_path / "assistant")
    found = find_drafter("org/tiny-it", checkpoint.path, checkpoint.config)
    assert found.path is not None
    assert found.why == "org/tiny-it-assistant, from the hub"


def test_without_a_connection_the_cache_serves(hub, repository, monkeypatch):
    hub.repositories["org/tiny"] = repository
    open_checkpoint("org/tiny")
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    assert open_checkpoint("org/tiny").tensors
    with pytest.raises(CheckpointError, match=r"there is no org/other here.* the hub cannot be reached"):
        open_checkpoint("org/other")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert open_checkpoint("org/tiny").tensors
    with pytest.raises(CheckpointError, match="there is no org/other here or in the hub's cache"):
        open_checkpoint("org/other")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("org/none", "there is no org/none here, and none on the hub, or it is private. Check the name"),
        ("org/gated", "org/gated is gated on the hub: its licence has to be accepted first. Accept it at"),
        ("org/tiny@v9", "org/tiny has no revision v9 on the hub"),
        ("org/empty", "the hub's org/empty has 0 GGUF files and no safetensors"),
        ("org/tiny:Q3_K", "the hub's org/tiny has 0 GGUF files whose name has Q3_K"),
    ],
)
def test_what_cannot_be_had_is_explained(hub, repository, tmp_path, source, message):
    hub.repositories["org/tiny"] = repository
    hub.gated.add("org/gated")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "README.md").write_text("nothing")
    hub.repositories["org/empty"] = tmp_path / "empty"
    with pytest.raises(CheckpointError) as problem:
        open_checkpoint(source)
    assert message in str(problem.value)


def test_the_token_of_the_environment_is_sent(hub, repository, monkeypatch):
    hub.repositories["org/tiny"] = repository
    monkeypatch.setenv("HF_TOKEN", "hf_of_this_test")
    open_checkpoint("org/tiny")
    assert hub.tokens == {"Bearer hf_of_this_test"}


def test_what_is_an_id_and_what_a_path():
    assert parse_hub_id("google/gemma-4-E2B-it") == HubId("google/gemma-4-E2B-it")
    assert parse_hub_id("a/b@refs/pr/3:Q4_0") == HubId("a/b", "refs/pr/3", "Q4_0")
    for path in ("model.gguf", "./a/b", "a/b/c", "/a/b", "~/x", "a/model.gguf", "../x", "a/", ""):
        assert parse_hub_id(path) is None


def test_a_path_that_exists_is_never_looked_up(hub, repository, monkeypatch):
    place = repository.parent / "org"
    place.mkdir()
    shutil.copytree(repository, place / "tiny")
    monkeypatch.chdir(repository.parent)
    assert open_checkpoint("org/tiny").tensors
    assert not hub.sent
