"""`ollama:NAME`: models of Ollama's store, by its manifests."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from ollama_store import Store
from tiny_checkpoints import make_assistant, save_gguf

from outrider.checkpoints import ollama, open_checkpoint
from outrider.drafters.pairing import find_drafter
from outrider.errors import CheckpointError

LIBRARY = "registry.ollama.ai/library"


@pytest.fixture
def store(tmp_path, monkeypatch):
    found = Store(tmp_path / "models")
    monkeypatch.setenv("OLLAMA_MODELS", str(found.root))
    return found


@pytest.fixture
def model(tiny):
    return tiny("gemma3").gguf


def refused(source: str, *parts: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(source)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("stored", "asked"),
    [
        (f"{LIBRARY}/gemma3/latest", "gemma3"),
        (f"{LIBRARY}/gemma3/latest", "gemma3:latest"),
        (f"{LIBRARY}/gemma3/4b-it-q4_K_M", "gemma3:4b-it-q4_k_m"),
        (f"{LIBRARY}/gemma3/4b", "library/Gemma3:4B"),
        ("registry.ollama.ai/someone/gemma3/4b", "someone/gemma3:4b"),
        ("hf.co/owner/gemma-GGUF/Q8_0", "hf.co/owner/gemma-GGUF:Q8_0"),
        ("localhost:5000/ns/gemma3/latest", "localhost:5000/ns/gemma3"),
    ],
)
def test_a_model_is_found_by_its_name(store, model, stored, asked):
    manifest = store.add(stored, {"model": model})
    checkpoint = open_checkpoint(f"ollama:{asked}")
    assert checkpoint.path == store.file_of(manifest, "model")
    assert checkpoint.config == open_checkpoint(model).config


def test_the_store_of_the_user_comes_before_that_of_the_service(model, tmp_path, monkeypatch):
    monkeypatch.delenv("OLLAMA_MODELS", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(ollama, "_SERVICE_STORE", tmp_path / "service")
    refused("ollama:gemma3", "no store of Ollama's", str(tmp_path / ".ollama/models"), "Set OLLAMA_MODELS")
    service = Store(tmp_path / "service")
    service.add(f"{LIBRARY}/gemma3/1b", {"model": model})
    assert open_checkpoint("ollama:gemma3:1b").path.is_relative_to(service.root)
    own = Store(tmp_path / ".ollama" / "models")
    own.add(f"{LIBRARY}/gemma3/4b", {"model": model})
    assert open_checkpoint("ollama:gemma3:4b").path.is_relative_to(own.root)
    assert open_checkpoint("ollama:gemma3:1b").path.is_relative_to(service.root)


def test_its_parameters_are_the_sampling_defaults(store, tiny, tmp_path, caplog):
    model = save_gguf(
        tiny("gemma3").model,
        tmp_path / "model.gguf",
        edit=lambda writer: (
            writer.add_float32("general.sampling.temp", 0.7),
            writer.add_float32("general.sampling.top_p", 0.95),
        ),
    )
    params = {"top_k": 64, "stop": ["<end_of_turn>"], "num_ctx": 8192, "repeat_penalty": 1.1, "num_predict": -1}
    store.add(
        f"{LIBRARY}/gemma3/4b", {"model": model, "params": params, "license": b"terms", "template": b"{{ .Prompt }}"}
    )
    assert open_checkpoint("ollama:gemma3:4b").sampling == {
        "temperature": 0.7,
        "top_p": 0.95,
        "top_k": 64,
        "stop": ("<end_of_turn>",),
        "repetition_penalty": 1.1,
    }
    assert not caplog.messages
    store.add(f"{LIBRARY}/odd/latest", {"model": model, "params": {"mirostat": 2, "seed": 4, "top_k": "many"}})
    assert open_checkpoint("ollama:odd").sampling == {"temperature": 0.7, "top_p": 0.95}
    assert "top_k is 'many'" in caplog.messages[0]
    assert caplog.messages[1].endswith("not used: mirostat, seed")


def test_what_is_not_used_is_said(store, model, caplog):
    layers = {"model": model, "system": b"You are a pirate.", "projector": b"an image encoder", "messages": b"[]"}
    store.add(f"{LIBRARY}/pirate/latest", layers)
    open_checkpoint("ollama:pirate")
    assert caplog.messages == ["ollama:pirate: not used: its system text and messages; send that with each request"]


def test_its_draft_layer_is_the_drafter_if_it_is_one(store, tiny, tmp_path):
    target = tiny("gemma4-e2b")
    drafter = save_gguf(make_assistant(target.model.config.get_text_config(), ordered=False), tmp_path / "mtp.gguf")
    manifest = store.add(f"{LIBRARY}/gemma4/latest", {"model": target.gguf, "draft": drafter})
    checkpoint = open_checkpoint("ollama:gemma4")
    found = find_drafter("ollama:gemma4", checkpoint.path, checkpoint.config)
    assert found.path == store.file_of(manifest, "draft")
    assert found.why.endswith("the draft layer of ollama:gemma4")
    store.add(f"{LIBRARY}/odd/latest", {"model": target.gguf, "draft": b"a drafter of another kind"})
    found = find_drafter("ollama:odd", checkpoint.path, checkpoint.config)
    assert found.path is None
    assert "is not a kind of file that can be loaded" in found.why


def test_a_list_of_manifests(store, model):
    safetensors = store.manifest({"tensor": b"x"})
    gguf = store.manifest({"model": model})
    name = f"{LIBRARY}/gemma3/latest"
    mlx = {"runner": "mlx", "format": "safetensors", **store.blob(safetensors)}
    store.write(
        name, {"schemaVersion": 2, "manifests": [mlx, {"runner": "ollama", "format": "gguf", **store.blob(gguf)}]}
    )
    assert open_checkpoint("ollama:gemma3").config.vocab_size == 512
    store.write(name, {"schemaVersion": 2, "manifests": [mlx]})
    refused("ollama:gemma3", "stored as safetensors layers, not as a GGUF file", "Use a tag of it that is a GGUF file")


def test_an_unknown_name_gets_those_that_are_gemma(store, model):
    store.add(f"{LIBRARY}/gemma3/4b", {"model": model})
    store.add("registry.ollama.ai/someone/gemma4/latest", {"model": model}, family="gemma4")
    store.add("hf.co/owner/gemma-GGUF/Q8_0", {"model": model})
    store.add(f"{LIBRARY}/llama3/latest", {"model": model}, family="llama")
    store.write(f"{LIBRARY}/broken/latest", {"config": 3})
    names = "ollama:someone/gemma4, ollama:gemma3:4b, ollama:hf.co/owner/gemma-GGUF:Q8_0"
    refused("ollama:gemma3", f"there is no 'gemma3' in Ollama's store ({store.root})")
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint("ollama:gemma3")
    assert sorted(str(caught.value).split("of these: ")[1].rstrip(".").split(", ")) == sorted(names.split(", "))
    for manifest in (store.root / "manifests").rglob("*/*/*/*"):
        manifest.unlink()
    refused("ollama:gemma3:4b", "Get it with: ollama pull gemma3:4b")
    for name in ("", ":", "/", "../../../etc/passwd", "a/b/c/d/e", "\0"):
        refused(f"ollama:{name}", "there is no")


@pytest.mark.parametrize(
    ("kind", "parts"),
    [
        ("adapter", ["has a LoRA adapter", "with --lora NAME="]),
        ("tensor", ["stored as safetensors layers"]),
    ],
)
def test_layers_that_are_refused(store, model, kind, parts):
    store.add(f"{LIBRARY}/gemma3/latest", {"model": model, kind: b"x"})
    refused("ollama:gemma3", "ollama:gemma3", *parts)


def test_a_damaged_store(store, model):
    manifest = store.add(f"{LIBRARY}/gemma3/latest", {"model": model})
    blob = store.file_of(manifest, "model")
    os.truncate(blob, 100)
    refused("ollama:gemma3", str(blob), "has 100 bytes in this file", "ollama pull gemma3")
    blob.unlink()
    refused("ollama:gemma3", str(blob), "No such file", "ollama pull gemma3")
    described = json.loads(manifest.read_text())
    for layer in ({"digest": "sha256:../../x"}, {"digest": 4}, {}):
        manifest.write_text(json.dumps({**described, "layers": [{**described["layers"][0], **layer}]}))
        refused("ollama:gemma3", "ollama:gemma3")
    for damaged in ("", "[]", "{}", '{"layers": 3}', '{"layers": [3, {"mediaType": 4}]}', '{"manifests": [4]}'):
        manifest.write_text(damaged)
        refused("ollama:gemma3")


def test_a_path_is_a_path(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("ollama:gemma3").write_bytes(model.read_bytes())
    assert open_checkpoint("./ollama:gemma3").tensors
