"""Nothing that a published checkpoint says is dropped without a word.

Each key and tensor of the published checkpoints is changed alone. What is read must differ, or the file is refused, or
the key is on the list of ignored ones (`checkpoints/ignored.py`), which docs/checkpoints.md prints with the reasons.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from published_configs import GENERATION, PUBLISHED, TOKENIZER_CONFIG
from tiny_checkpoints import Tiny
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
from word_tokenizer import save_tokenizer

from outrider.checkpoints import AssistantConfig, Tensor, ignored
from outrider.checkpoints.chat_template import special_tokens, stored_template
from outrider.checkpoints.checkpoint import TOKEN_ORDERING
from outrider.checkpoints.gguf import reader
from outrider.checkpoints.gguf.file import GGUFFile
from outrider.checkpoints.hf.folder import settings_of
from outrider.checkpoints.hf.names import neutral_name
from outrider.checkpoints.ignored import keys
from outrider.checkpoints.settings import Settings
from outrider.checkpoints.validate import expected_shapes, validate
from outrider.errors import CheckpointError
from outrider.tokenizer import open_tokenizer

DOCS = Path(__file__).parents[2] / "docs" / "checkpoints.md"
REMOVED = object()
REFUSED = "refused"
TEXTS = ("ab a b", " é\n", "<eos>w7 <bos>")


def others(value: Any) -> Iterator[Any]:
    """A value of the same type, none, and one of a wrong type."""
    match value:
        case bool():
            yield not value
        case int() | float():
            yield value + 1
        case str():
            yield value + "x"
        case list():
            yield [*value[1:], 7 if isinstance(value[0], int) else "full_attention"]
        case np.ndarray():
            yield value + value.dtype.type(1)
        case dict():
            yield {**value, "another": 1}
    yield REMOVED
    yield 3 if isinstance(value, str | list | dict) else "wrong"


def paths(config: Mapping[str, Any], prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The keys, also of nested objects that are read."""
    for key, value in config.items():
        if value is not None:
            yield (*prefix, key)
        if isinstance(value, dict) and key not in (*keys(ignored.MODALITIES), *keys(ignored.CONFIG)):
            yield from paths(value, (*prefix, key))


def changed(config: Mapping[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """A copy with one key set, or removed."""
    copied = deepcopy(dict(config))
    section = copied
    for key in path[:-1]:
        section = section[key]
    section[path[-1]] = value
    if value is REMOVED:
        del section[path[-1]]
    return copied


def outcome(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except CheckpointError:
        return REFUSED


def read_folder(config: Mapping[str, Any], generation: Mapping[str, Any]) -> Any:
    return settings_of(Settings(config, Path("config.json")), Settings(generation, Path("generation_config.json")))


def within(config: Mapping[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    for key in path[:-1]:
        config = config[key]
    return dict(config)


def is_ignored(config: Mapping[str, Any], path: tuple[str, ...]) -> bool:
    """Whether the lists have the key, or it counts only with one that is not set."""
    composite, key = len(path) == 1 and "text_config" in config, path[-1]
    section = within(config, path)
    without = [switch for switch, of_switch in ignored.ONLY_WITH.items() if key in of_switch]
    if any(not section.get(switch) for switch in without):
        return True
    if "backbone_hidden_size" in config and key in keys(ignored.DRAFTER):
        return True
    return key in keys(ignored.CONFIG) or (composite and key in keys(ignored.MODALITIES))


@cache
def seen_by_transformers(described: str) -> dict[str, Any] | None:
    """The config as transformers completes it; None if it refuses it."""
    config = json.loads(described)
    if config["model_type"].endswith("assistant"):
        config["text_config"].setdefault("hidden_size_per_layer_input", 0)
    try:
        return json.loads(json.dumps(transformers.AutoConfig.for_model(**config).to_dict(), default=str))  # type: ignore[no-any-return]
    except KeyError:
        return None


def is_default(config: Mapping[str, Any], path: tuple[str, ...]) -> bool:
    """Whether transformers completes the config without the key to what it is with it."""
    without = changed(config, path, REMOVED)
    return seen_by_transformers(json.dumps(config)) == seen_by_transformers(json.dumps(without))


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_key_of_config_json(name: str) -> None:
    config, _ = PUBLISHED[name]
    plain = read_folder(config, {})
    silent = []
    for path in paths(config):
        for value in others(within(config, path)[path[-1]]):
            without_effect = outcome(lambda: read_folder(changed(config, path, value), {})) == plain  # noqa: B023
            if without_effect and not is_ignored(config, path) and not (value is REMOVED and is_default(config, path)):
                silent.append((".".join(path), "removed" if value is REMOVED else value))
    assert not silent


@pytest.mark.parametrize("family", GENERATION)
def test_every_key_of_generation_config_json(family: str, caplog: pytest.LogCaptureFixture) -> None:
    config, generation = PUBLISHED["gemma-4-26B-A4B-it"][0] | {"eos_token_id": 1}, GENERATION[family]
    plain = read_folder(config, generation)
    for key, given in generation.items():
        for value in others(given):
            found = outcome(lambda: read_folder(config, changed(generation, (key,), value)))  # noqa: B023
            implied = (key, value) in (("do_sample", REMOVED), ("temperature", REMOVED))  # 1, where others are set
            said = f"not used: generation_config.json: {key} is" in caplog.text
            assert found != plain or implied or said or key in keys(ignored.GENERATION), (key, value)
    for key, value in {"num_beams": 4, "forced_eos_token_id": 1, "stop_strings": ["x"], "unheard_of": 1}.items():
        caplog.clear()
        found = read_folder(config, {**generation, key: value})
        assert found != plain or f"not supported and not used: {key}" in caplog.text
    caplog.clear()
    assert read_folder(config, {**generation, "num_beams": 1, "forced_eos_token_id": None}) == plain
    assert "not supported" not in caplog.text


@pytest.mark.parametrize("family", TOKENIZER_CONFIG)
def test_every_key_of_tokenizer_config_json(family: str, tmp_path: Path) -> None:
    tokenizer, stored = save_tokenizer(tmp_path), {**TOKENIZER_CONFIG[family], "chat_template": "{{ messages }}"}

    def read(config: Mapping[str, Any]) -> Any:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
        return stored_template(tokenizer), special_tokens(tokenizer)

    plain = read(stored)
    for key, given in stored.items():
        for value in others(given):
            found = outcome(lambda: read(changed(stored, (key,), value)))  # noqa: B023
            default = (key, value) == ("bos_token", REMOVED) or (key == "bos_token" and value == 3)
            default |= key in stored["extra_special_tokens"]  # which says it again, and wins in transformers too
            assert found != plain or default or key in keys(ignored.TOKENIZER_CONFIG), (key, value)


def test_every_key_of_tokenizer_json(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    made = Tokenizer.from_file(str(save_tokenizer(tmp_path)))
    made.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    made.pre_tokenizer = pre_tokenizers.Split("b", "isolated")
    made.decoder = decoders.Fuse()
    stored = json.loads(made.to_str())
    stored["padding"] = {
        "strategy": {"Fixed": 9},
        "direction": "Left",
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "<pad>",
    }
    stored["truncation"] = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}

    def read(content: Mapping[str, Any]) -> Any:
        path.write_text(json.dumps(content))
        found = open_tokenizer(path)
        ids = [found.encode(text, parse_special=special) for text in TEXTS for special in (False, True)]
        return ids, [found.decode(each) for each in ids], found.hidden

    plain = read(stored)
    changes: dict[str, Any] = {
        "version": REMOVED,
        "padding": None,
        "truncation": None,
        "decoder": {"type": "ByteFallback"},
        "post_processor": None,
        "pre_tokenizer": None,
        "normalizer": None,
        "added_tokens": stored["added_tokens"][1:],
    }
    assert changes.keys() == stored.keys() - {"model"}
    for key, value in changes.items():
        default = key == "post_processor"  # <bos>, as the post-processor has it
        different = outcome(lambda: read(changed(stored, (key,), value))) != plain  # noqa: B023
        assert different or default or key in keys(ignored.TOKENIZER), key
    stored["post_processor"]["special_tokens"]["<bos>"]["ids"] = [1]
    assert read(stored) != plain
    stored["model"]["vocab"]["ab"], stored["model"]["vocab"]["b"] = (
        stored["model"]["vocab"][word] for word in ("b", "ab")
    )
    for part in ({"merges": []}, {"dropout": 0.5}, {"byte_fallback": False}, {"vocab": stored["model"]["vocab"]}):
        model = {**json.loads(made.to_str())["model"], **part}
        assert outcome(lambda: read({**json.loads(made.to_str()), "model": model})) != plain, part  # noqa: B023


REDUNDANT = ("value_length", "value_length_swa", "rope.dimension_count", "rope.dimension_count_swa", "vocab_size")
"""Of a GGUF file: must equal another key, or what the tensors have; so a file may leave them out."""
WITHOUT = {"nextn_predict_layers", "centroid_top_k", "shared_kv_layers", "embedding_length_per_layer_input", "type"}
"""Of a GGUF file: older converters leave them out, which stands for the one published value, or for none."""


@pytest.mark.parametrize("variant", ["gemma3", "gemma3-scaled", "gemma4-e2b", "gemma4-moe", "assistant-centroids"])
def test_every_key_of_a_gguf_file(variant: str, tiny: Callable[[str], Tiny], monkeypatch: pytest.MonkeyPatch) -> None:
    file = GGUFFile(tiny(variant).gguf)
    stored = {
        **file.values,
        "tokenizer.ggml.suppress_tokens": np.array([7, 9], np.int32),
        "tokenizer.ggml.eot_token_id": 5,
        "tokenizer.ggml.add_sep_token": False,
        "tokenizer.ggml.pre": "default",
        "tokenizer.chat_template": "{{ messages }}",
        "tokenizer.chat_template.tool_use": "{{ tools }}",
        "general.type": "model",
        "general.sampling.top_k": 64,
        "general.sampling.top_p": 0.95,
        "general.sampling.temp": 0.9,
    }
    monkeypatch.setattr(reader, "open_parts", lambda _: [file])

    def read() -> Any:
        found = reader.open_gguf(file.path)
        tables = None if found.tokenizer is None else dataclasses.asdict(found.tokenizer)  # type: ignore[call-overload]
        return found.config, list(found.tensors), found.sampling, repr(tables)

    file.values = stored
    plain, architecture, silent = read(), stored["general.architecture"], []
    known = {f"{architecture}.{key}" for key in keys(ignored.GGUF_MODEL)}
    known |= {f"tokenizer.ggml.{key}" for key in keys(ignored.GGUF_TOKENIZER)}
    for key, given in stored.items():
        used = key.startswith((f"{architecture}.", "tokenizer.", "general.sampling.")) or key == "general.type"
        for value in others(given):
            file.values = changed(stored, (key,), value)
            implied = key.endswith(REDUNDANT) or key.rpartition(".")[2] in WITHOUT
            if outcome(read) == plain and used and key not in known and not (value is REMOVED and implied):
                silent.append((key, "removed" if value is REMOVED else value))
    assert not silent
    for key in ("tokenizer.ggml.unheard_of", f"{architecture}.unheard_of"):
        file.values = {**stored, key: 1}
        assert outcome(read) == REFUSED


def tensors_of(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Tensors without values, but for a drafter's ordering."""
    found = {}
    for name, shape in shapes.items():
        kind = "I32" if name == TOKEN_ORDERING else "F32"
        data = np.arange(shape[0], dtype=np.int32) if kind == "I32" else np.empty(0)
        found[name] = Tensor(name, kind, shape, data.view(np.uint8))  # type: ignore[arg-type]
    return found


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_tensor(name: str) -> None:
    settings = read_folder(PUBLISHED[name][0], {})
    shapes = expected_shapes(settings.config)
    tensors, path = tensors_of(shapes), Path(name)
    assert list(validate(settings.config, tensors, path)) == list(shapes)
    config = settings.config.text if isinstance(settings.config, AssistantConfig) else settings.config
    kinds = {(layer.kind, layer.kv_source == index) for index, layer in enumerate(config.layers)}
    firsts = [
        next(i for i, layer in enumerate(config.layers) if (layer.kind, layer.kv_source == i) == kind) for kind in kinds
    ]
    for tensor in tensors.values():
        layer = tensor.name.split(".")[1] if tensor.name.startswith("layers.") else None
        if layer is not None and int(layer) not in firsts:
            continue
        left = {other: value for other, value in tensors.items() if other != tensor.name}
        doubled = (2 * tensor.shape[0], *tensor.shape[1:])
        for others_ in (
            left,
            {**left, f"{tensor.name}x": tensor},
            {**left, tensor.name: dataclasses.replace(tensor, shape=doubled)},
            {**left, tensor.name: dataclasses.replace(tensor, format="F32" if tensor.format == "I32" else "I32")},
            {**tensors, f"{tensor.name}.bias": tensor},
        ):
            assert outcome(lambda: validate(settings.config, others_, path)) == REFUSED, tensor.name  # noqa: B023


@pytest.mark.parametrize(
    "name",
    [
        "vision_tower.x",
        "model.vision_tower.x",
        "model.embed_vision.x",
        "multi_modal_projector.x",
        "model.audio_tower.x",
    ],
)
def test_only_other_modalities_are_left_out(name: str) -> None:
    assert neutral_name(name) is None
    assert neutral_name(f"text.{name}") is not None


def test_the_docs_have_the_lists() -> None:
    text = DOCS.read_text("utf-8")
    tables = {name: table for name, table in vars(ignored).items() if name.isupper()}
    assert len(tables) == 9
    for table in tables.values():
        for reason, of_reason in table.items():
            shown = f"`{reason}`" if table is ignored.ONLY_WITH else reason
            row = f"| {', '.join(f'`{key}`' for key in of_reason)} | {shown} |"
            assert row in text, row


def test_the_docs_name_every_published_key() -> None:
    text = DOCS.read_text("utf-8")
    configs = [config for config, _ in PUBLISHED.values()]
    levels = [*configs, *(config["text_config"] for config in configs if "text_config" in config)]
    named = {key for level in (*levels, *GENERATION.values()) for key in level}
    assert not [key for key in sorted(named) if f"`{key}`" not in text]
