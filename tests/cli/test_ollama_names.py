"""Commands take the name of a model in Ollama's store wherever they take a model."""

from __future__ import annotations

import json

from ollama_store import Store

from outrider.server.served_models import served_name


def test_commands_take_a_model_of_ollamas_store(tiny, call, tmp_path, monkeypatch):
    store = Store(tmp_path / "models")
    monkeypatch.setenv("OLLAMA_MODELS", str(store.root))
    store.add("registry.ollama.ai/library/gemma3/latest", {"model": tiny("gemma3").gguf, "params": {"top_k": 64}})
    found = json.loads(call("inspect", "ollama:gemma3", "--json").out)
    assert (found["architecture"], found["sampling"]) == ("gemma3", {"top_k": 64, "temperature": 1.0})
    assert "tok" in call("plan", "ollama:gemma3", "--bandwidth", "40", "--arithmetic", "300").out
    assert json.loads(call("run", "ollama:gemma3", "Hi", "--max-tokens", "2", "--json").out)["token_ids"]
    refused = call("run", "ollama:nothing", "Hi")
    assert refused.code == 2
    assert "Pass one of these: ollama:gemma3" in refused.err
    assert served_name("ollama:gemma3:4b") == "ollama:gemma3:4b"
