"""Models of Ollama's store, by name. The store is only read.

    ollama:NAME                     the tag `latest` of the namespace `library`
    ollama:NAME:TAG                 e.g. ollama:gemma3:4b
    ollama:NAMESPACE/NAME:TAG       of any host
    ollama:HOST/NAMESPACE/NAME:TAG  e.g. ollama:hf.co/owner/name:Q8_0

`manifests/HOST/NAMESPACE/NAME/TAG` is a JSON file that lists layers, each a file `blobs/sha256-...`. Of these, the
model (a GGUF file), the parameters (JSON) and a drafter are used. A projector is left out, as vision is. The template
is not used: it is written in Go's language, and the GGUF file has the model's own. Nor are the system text and the
messages that a Modelfile adds to every conversation: a log line says so.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from outrider.checkpoints.checkpoint import Checkpoint
from outrider.checkpoints.gguf.reader import open_gguf
from outrider.checkpoints.hf.json_file import read_json
from outrider.checkpoints.sampling import OLLAMA, sampling_of
from outrider.checkpoints.settings import Settings
from outrider.errors import CheckpointError

PREFIX = "ollama:"
_log = logging.getLogger("outrider.checkpoints")
_SERVICE_STORE = Path("/usr/share/ollama/.ollama/models")
"""Where the service that Ollama's installer sets up on Linux keeps its models."""
_HOST = "registry.ollama.ai"
_LAYER = "application/vnd.ollama.image."
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_RUNNERS = ("ollama", "llamacpp")
"""Of a list of manifests, those whose model is a GGUF file."""
_FAMILIES = ("gemma3", "gemma4")
_UNUSED = {"system": "system text", "messages": "messages", "prompt": "prompt template"}
_MOST_NAMED = 12


@dataclass(frozen=True)
class OllamaModel:
    """The files of a model in the store.

    Attributes:
        model: the GGUF file.
        draft: the drafter's GGUF file; None without one.
        params: the file of its parameters; None without one.
        unused: kinds of layers that would change the answers and are not used.
    """

    model: Path
    draft: Path | None
    params: Path | None
    unused: tuple[str, ...]


def is_ollama(source: object) -> bool:
    """Whether a model of Ollama's store is named."""
    return isinstance(source, str) and source.startswith(PREFIX)


def open_ollama(source: str) -> Checkpoint:
    """The checkpoint of a model in the store. Its parameters replace the GGUF file's own sampling defaults.

    Raises:
        CheckpointError: as `find_ollama` and `open_gguf`.
    """
    found = find_ollama(source)
    checkpoint = open_gguf(found.model)
    if found.unused:
        _log.warning("%s: not used: its %s; send that with each request", source, " and ".join(found.unused))
    if found.params is None:
        return checkpoint
    params = Settings(read_json(found.params), found.params)
    return replace(checkpoint, sampling=sampling_of(params, OLLAMA, checkpoint.sampling))


def find_ollama(source: str) -> OllamaModel:
    """The files of a model in the store.

    Raises:
        CheckpointError: there is no store or no such model, a file of it is missing, or its model is no GGUF file.
    """
    wanted, stores = source.removeprefix(PREFIX), _stores()
    for store in stores:
        for manifest in _manifests(store):
            if _names(manifest, wanted):
                return _model_of(source, store, manifest)
    known = [name for store in stores for name in _gemma_names(store)]
    remedy = f"Pass one of these: {', '.join(known[:_MOST_NAMED])}" if known else f"Get it with: ollama pull {wanted}"
    found = f"there is no {wanted!r} in Ollama's store ({', '.join(map(str, stores))})"
    raise CheckpointError(found, remedy=remedy)


def _stores() -> list[Path]:
    """The folders of the stores that exist and can be read."""
    known = [Path(given)] if (given := os.environ.get("OLLAMA_MODELS")) else [_SERVICE_STORE]
    if not given:
        with suppress(RuntimeError):  # a user without a home folder
            known.insert(0, Path("~/.ollama/models").expanduser())
    there = [store for store in known if os.access(store / "manifests", os.R_OK | os.X_OK)]
    if not there:
        looked = " and ".join(map(str, known))
        remedy = "Set OLLAMA_MODELS to its folder, which has the subfolders manifests and blobs"
        raise CheckpointError(f"there is no store of Ollama's that can be read (looked in {looked})", remedy=remedy)
    return there


def _manifests(store: Path) -> list[tuple[str, str, str, str]]:
    """(host, namespace, name, tag) of each model, those of Ollama's own registry first."""
    try:
        files = sorted(path.relative_to(store / "manifests").parts for path in store.glob("manifests/*/*/*/*"))
    except OSError as error:
        raise CheckpointError(f"cannot be read ({error})", path=store, remedy="Check its permissions") from error
    return [(host, namespace, name, tag) for host, namespace, name, tag in sorted(files, key=lambda f: f[0] != _HOST)]


def _names(manifest: tuple[str, str, str, str], wanted: str) -> bool:
    """Whether a model is the wanted one; upper and lower case are the same."""
    *places, last = wanted.lower().split("/")
    name, _, tag = last.partition(":")
    host_and_namespace = places or ["library"]
    expected = (*host_and_namespace, name, tag or "latest")
    return tuple(part.lower() for part in manifest)[-len(expected) :] == expected


def _model_of(source: str, store: Path, parts: tuple[str, str, str, str]) -> OllamaModel:
    path = store.joinpath("manifests", *parts)
    manifest = read_json(path)
    if isinstance(choices := manifest.get("manifests"), list):
        fits = [one for one in choices if isinstance(one, dict) and one.get("runner") in (*_RUNNERS, None)]
        if not fits:
            raise _not_gguf(source, path)
        manifest = read_json(_blob(source, store, fits[0]))
    layers = _layers(manifest)
    if "tensor" in layers:
        raise _not_gguf(source, path)
    if "adapter" in layers:
        problem = f"{source} has a LoRA adapter, which is not loaded with its model"
        remedy = f"Load the model that it was made from, with --lora NAME={_blob(source, store, layers['adapter'][0])}"
        raise CheckpointError(problem, path=path, remedy=remedy)
    if len(layers.get("model", ())) != 1:
        problem = f"{source} has {len(layers.get('model', ()))} model layers, not one"
        raise CheckpointError(problem, path=path, remedy=_again(source))
    files = {kind: _blob(source, store, layers[kind][0]) for kind in ("model", "draft", "params") if kind in layers}
    unused = tuple(words for kind, words in _UNUSED.items() if kind in layers)
    return OllamaModel(files["model"], files.get("draft"), files.get("params"), unused)


def _layers(manifest: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Kind -> layers of a manifest."""
    layers: dict[str, list[dict[str, Any]]] = {}
    found = manifest.get("layers")
    for layer in found if isinstance(found, list) else ():
        if isinstance(layer, dict) and isinstance(kind := layer.get("mediaType"), str):
            layers.setdefault(kind.removeprefix(_LAYER), []).append(layer)
    return layers


def _blob(source: str, store: Path, layer: dict[str, Any]) -> Path:
    """The file of a layer. Raises CheckpointError if it is missing or shorter than its manifest says."""
    digest, size = layer.get("digest"), layer.get("size")
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise CheckpointError(f"{source} has a layer without a digest of SHA-256", path=store, remedy=_again(source))
    path = store / "blobs" / digest.replace(":", "-")
    try:
        there = path.stat().st_size
    except OSError as error:
        problem = f"{source} names this file, which cannot be read ({error.strerror or error})"
        raise CheckpointError(problem, path=path, remedy=_again(source)) from error
    if isinstance(size, int) and there != size:
        problem = f"{source} has {there} bytes in this file, where its manifest says {size}"
        raise CheckpointError(problem, path=path, remedy=_again(source))
    return path


def _again(source: str) -> str:
    return f"Get it again with: ollama pull {source.removeprefix(PREFIX)}"


def _not_gguf(source: str, path: Path) -> CheckpointError:
    problem = f"{source} is stored as safetensors layers, not as a GGUF file"
    return CheckpointError(problem, path=path, remedy="Use a tag of it that is a GGUF file, such as one for llama.cpp")


def _gemma_names(store: Path) -> Iterator[str]:
    """The models that are of a supported family, as one names them."""
    for host, namespace, name, tag in _manifests(store):
        try:
            config = read_json(store.joinpath("manifests", host, namespace, name, tag)).get("config")
            described = read_json(_blob("", store, config if isinstance(config, dict) else {}))
        except CheckpointError:
            continue
        if described.get("model_family") in _FAMILIES:
            places = () if namespace == "library" else (namespace,) if host == _HOST else (host, namespace)
            yield PREFIX + "/".join((*places, name)) + ("" if tag == "latest" else f":{tag}")
