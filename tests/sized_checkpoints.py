"""Synthetic checkpoints of every published Gemma 4 size, in the published form: a folder, a split GGUF, their drafters.

The layers have their true shapes divided by `shrink` (1: the true ones), of each kind at least one, and where layers
share keys and values both those that make them and those that read them; the vocabulary is small. Weights are random.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import transformers
from gguf import GGMLQuantizationType as Type
from published_configs import PUBLISHED
from tiny_checkpoints import gguf_name, gguf_writer, rope_freqs
from word_tokenizer import save_tokenizer

from outrider.backends import cpu
from outrider.checkpoints.hf.config import hf_config
from outrider.checkpoints.settings import Settings
from outrider.checkpoints.validate import expected_shapes

SIZES = ("E2B", "E4B", "12B", "26B-A4B", "31B")
VOCABULARY = 1024
_SLIDING, _FULL = "sliding_attention", "full_attention"
_LAYERS = {  # layer kinds, and how many of the last share keys and values
    "E2B": ([_SLIDING, _SLIDING, _SLIDING, _SLIDING, _FULL] * 2, 5),
    "E4B": ([_SLIDING, _SLIDING, _FULL] * 2, 3),
    "12B": ([_SLIDING, _SLIDING, _FULL], 0),
    "26B-A4B": ([_SLIDING, _FULL], 0),
    "31B": ([_SLIDING, _FULL], 0),
}
_DIVIDED = (
    "backbone_hidden_size",
    "hidden_size",
    "intermediate_size",
    "moe_intermediate_size",
    "head_dim",
    "global_head_dim",
    "hidden_size_per_layer_input",
)
_POOL = 1 << 20


@dataclass(frozen=True)
class Sized:
    """Folders of one size: in `safetensors` the model and its drafter as the hub has them, in `gguf` both as GGUF (the
    model in parts, of which `part` is the second)."""

    safetensors: Path
    gguf: Path
    part: Path


def make_size(size: str, root: Path, *, shrink: int) -> Sized:
    """Writes both forms into `root`."""
    name, pool = f"gemma-4-{size}-it", cpu.ThreadPool(2)
    ggufs = root / "gguf"
    ggufs.mkdir(parents=True)
    for repository, file in ((name, f"{name}-Q4_0.gguf"), (f"{name}-assistant", f"mtp-{name}.gguf")):
        config = short_config(size, PUBLISHED[repository][0], shrink)
        folder = root / "safetensors" / repository
        folder.mkdir(parents=True)
        save_folder(config, folder)
        split = 0 if file.startswith("mtp-") else 20
        save_gguf(config, ggufs / file, pool, split=split)
    return Sized(root / "safetensors", ggufs, sorted(ggufs.glob(f"{name}*"))[1])


def short_config(size: str, published: dict[str, Any], shrink: int) -> dict[str, Any]:
    """A published config.json with fewer layers and tokens, and every width divided."""
    config = deepcopy(published)
    assistant = "backbone_hidden_size" in config
    text = config["text_config"]
    if not assistant:
        kinds, shared = _LAYERS[size]
        text |= {"layer_types": kinds, "num_hidden_layers": len(kinds), "num_kv_shared_layers": shared}
    text["vocab_size"] = VOCABULARY
    if text.get("vocab_size_per_layer_input"):
        text["vocab_size_per_layer_input"] = VOCABULARY
    if config.get("use_ordered_embeddings"):
        config |= {"num_centroids": VOCABULARY // 16, "centroid_intermediate_top_k": 8}
    for section in (config, text):
        for key in _DIVIDED:
            if section.get(key):
                section[key] = -(-section[key] // shrink // 32) * 32
    text["sliding_window"] //= shrink
    return config


def save_folder(config: dict[str, Any], folder: Path, vocabulary: int = VOCABULARY) -> None:
    """config.json, two shards of bfloat16 with their index, and a tokenizer where it belongs."""
    (folder / "config.json").write_text(json.dumps(config))
    assistant = "backbone_hidden_size" in config
    if not assistant:
        save_tokenizer(folder, vocabulary)
    shards: list[dict[str, npt.NDArray[np.generic]]] = [{}, {}]
    for number, (name, values) in enumerate(random_tensors(config)):
        shards[number % 2][_published_name(name, assistant=assistant)] = values
    if not assistant:
        shards[1]["model.vision_tower.patch.weight"] = np.zeros((4, 4), np.uint16)
    if assistant:
        _save_bf16(folder / "model.safetensors", shards[0] | shards[1])
        return
    places = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05d}-of-00002.safetensors"
        _save_bf16(folder / file, shard)
        places |= dict.fromkeys(shard, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


def save_gguf(config: dict[str, Any], path: Path, pool: cpu.ThreadPool, *, split: int) -> None:
    """The same weights with their matrices in Q4_0."""
    theirs = _transformers_config(config)
    writer = gguf_writer(theirs, path, split=split)
    for name, values in random_tensors(config):
        if values.dtype == np.int64:
            writer.add_tensor(gguf_name(name), values.astype(np.int32))
        elif values.ndim == 1:
            writer.add_tensor(gguf_name(name), _floats(values))
        else:
            rows, columns = values.size // values.shape[-1], values.shape[-1]
            blocks, _, _ = cpu.quantize("Q4_0", "BF16", rows, columns, values.reshape(-1).view(np.uint8), pool)
            packed = np.asarray(blocks).reshape(*values.shape[:-1], -1)
            writer.add_tensor(gguf_name(name), packed, raw_dtype=Type.Q4_0)
    writer.add_tensor("rope_freqs.weight", rope_freqs(theirs.get_text_config()))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def random_tensors(config: dict[str, Any]) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """Neutral name and bfloat16 values (as uint16; int64 for a token ordering) of every tensor that belongs to it.

    Matrices keep the variance of what they multiply. They repeat themselves after a million values: drawing ten
    billion anew would take most of the time.
    """
    rng = np.random.default_rng(7)
    normal = rng.standard_normal(_POOL, dtype=np.float32)
    pools: dict[int, npt.NDArray[np.uint16]] = {}
    for name, shape in expected_shapes(hf_config(Settings(config, Path("config.json")), Settings({}, Path()))).items():
        if name.endswith("token_ordering"):
            yield name, rng.permutation(shape[0])
        elif len(shape) == 1:
            yield name, _bf16(rng.uniform(0.8, 1.2, shape).astype(np.float32))
        else:
            columns = shape[-1]
            if columns not in pools:
                pools[columns] = _bf16(normal * np.float32(columns**-0.5))
            start = int(rng.integers(0, _POOL // 2))
            yield name, np.resize(pools[columns][start:], shape)


def _published_name(name: str, *, assistant: bool) -> str:
    if assistant:
        return f"model.{name}" if name.startswith(("layers.", "norm.", "embed_tokens.")) else name
    return f"model.language_model.{name}"


def _transformers_config(config: dict[str, Any]) -> Any:
    # Converters write a unified model as a gemma4 without per-layer embeddings; its own config class has no such key.
    text = {"hidden_size_per_layer_input": 0, **config["text_config"], "model_type": "gemma4_text"}
    if "backbone_hidden_size" not in config:
        return transformers.Gemma4TextConfig(**text)
    names = ("backbone_hidden_size", "use_ordered_embeddings", "num_centroids", "centroid_intermediate_top_k")
    arguments = {name: config[name] for name in names}
    return transformers.Gemma4AssistantConfig(text_config=transformers.Gemma4TextConfig(**text), **arguments)


def _bf16(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    return (values.view(np.uint32) >> np.uint32(16)).astype(np.uint16)


def _floats(values: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    return (values.astype(np.uint32) << np.uint32(16)).view(np.float32)


def _save_bf16(path: Path, tensors: dict[str, npt.NDArray[Any]]) -> None:
    import torch
    from safetensors.torch import save_file

    found = {}
    for name, values in tensors.items():
        tensor = torch.from_numpy(values)
        found[name] = tensor if values.dtype == np.int64 else tensor.view(torch.bfloat16)
    save_file(found, path)
