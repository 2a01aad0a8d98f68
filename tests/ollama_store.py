"""A store as Ollama keeps it: manifests by name, and blobs by digest."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

_LAYER = "application/vnd.ollama.image."


class Store:
    """`root` is what OLLAMA_MODELS names."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "manifests").mkdir(parents=True)
        (root / "blobs").mkdir()

    def blob(self, data: bytes | Path | dict[str, Any]) -> dict[str, Any]:
        """Stores a file, or an object as JSON: its digest and size."""
        raw = (
            data.read_bytes()
            if isinstance(data, Path)
            else json.dumps(data).encode()
            if isinstance(data, dict)
            else data
        )
        digest = hashlib.sha256(raw).hexdigest()
        (self.root / "blobs" / f"sha256-{digest}").write_bytes(raw)
        return {"digest": f"sha256:{digest}", "size": len(raw)}

    def manifest(self, layers: dict[str, Any], family: str = "gemma3") -> dict[str, Any]:
        """A manifest with these layers: kind -> content."""
        config = {"model_format": "gguf", "model_family": family, "architecture": "amd64", "os": "linux"}
        return {
            "schemaVersion": 2,
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "config": {"mediaType": "application/vnd.docker.container.image.v1+json", **self.blob(config)},
            "layers": [{"mediaType": _LAYER + kind, **self.blob(data)} for kind, data in layers.items()],
        }

    def add(self, name: str, layers: dict[str, Any], family: str = "gemma3") -> Path:
        """A model "HOST/NAMESPACE/NAME/TAG" with these layers; the path of its manifest."""
        return self.write(name, self.manifest(layers, family))

    def write(self, name: str, manifest: dict[str, Any]) -> Path:
        """The path of a manifest."""
        path = self.root / "manifests" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(manifest))
        return path

    def file_of(self, manifest: Path, kind: str) -> Path:
        """The blob of a manifest's first layer of a kind."""
        layers = json.loads(manifest.read_text())["layers"]
        digest = next(layer["digest"] for layer in layers if layer["mediaType"] == _LAYER + kind)
        return self.root / "blobs" / digest.replace(":", "-")
