"""The quantization configs of Google's QAT mobile checkpoints: which modules are stored in how many bits.

There are two variants. That of transformers has `quant_method` "gemma": patterns for names of modules, each with a
number of bits. That of vLLM is a config of compressed-tensors whose groups round what goes into and comes out of a
matrix to static scales. Sources: transformers, integrations/gemma_quant.py; vLLM, compressed_tensors_wNa8o8.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from outrider.checkpoints.settings import Settings

BITS = (2, 4, 8)
_GEMMA, _CT = "gemma", "compressed-tensors"
_BOUNDARY = r"(?:(?<=\.)|(?=\.|$))"
_DESCRIPTIVE = (
    "quant_method",
    "quantization_status",
    "global_compression_ratio",
    "version",
    "kv_cache_scheme",
    "format",
    "dequantize",
    "run_compressed",
)
_DESCRIPTIVE_OF_WEIGHTS = ("observer", "observer_kwargs", "scale_dtype", "zp_dtype", "block_structure", "actorder")


@dataclass(frozen=True)
class Module:
    """How a module is stored: the bits of its weights, and which of its activations have a static scale.

    A static scale that the config calls for must be there; `inputs` and `outputs` None: the files say.
    """

    bits: int
    inputs: bool | None = None
    outputs: bool | None = None


ModuleOf = Callable[[str, str], Module | None]
"""(name in the files, "Linear" or "Embedding") -> the module; None if it is not quantized."""


def is_mobile(described: object) -> TypeGuard[Mapping[str, Any]]:
    """Whether a `quantization_config` is that of one of the two variants."""
    if not isinstance(described, Mapping):
        return False
    groups = described.get("config_groups")
    of_groups = groups.values() if isinstance(groups, Mapping) else ()
    static = any(isinstance(group, Mapping) and group.get("output_activations") for group in of_groups)
    method = described.get("quant_method")
    return method == _GEMMA or (method == _CT and static)


def mobile_modules(config: Settings) -> ModuleOf:
    """What a config says of each module.

    Raises:
        CheckpointError: it has a key or a value that is not understood.
    """
    return _gemma(config) if config.text("quant_method") == _GEMMA else _compressed_tensors(config)


def _gemma(config: Settings) -> ModuleOf:
    default, embeddings = _bits(config, 4), config.flag("quantize_embeddings", False)
    patterns = config.raw("module_quant_configs", {})
    if not isinstance(patterns, dict) or not all(isinstance(options, dict) for options in patterns.values()):
        raise config.fault("has module_quant_configs that are no patterns with options")
    found = []
    for pattern, options in patterns.items():
        of_pattern = Settings(
            {f"{pattern}: {key}": value for key, value in options.items()}, config.path, f"{pattern}: "
        )
        _compiled(pattern, config)  # by itself, so that none ends the group of another
        found.append(_bits(of_pattern, default))
        of_pattern.refuse_unread()
    matcher = _compiled("|".join(f"(?P<g{i}>{pattern})" for i, pattern in enumerate(patterns)) or "(?!)", config)
    keys = config.texts("modules_to_not_convert")
    left_out = [_compiled(f"(?:{key}){_BOUNDARY}", config) for key in keys]
    config.refuse_unread()

    def module_of(name: str, kind: str) -> Module | None:
        if any(pattern.match(name) for pattern in left_out) or name.endswith(tuple(keys)):
            return None
        if kind == "Embedding" and not embeddings:
            return None
        if (match := matcher.search(name)) is None:
            return Module(default)
        return Module(next(bits for i, bits in enumerate(found) if match[f"g{i}"] is not None))

    return module_of


def _compressed_tensors(config: Settings) -> ModuleOf:
    groups = config.section("config_groups")
    names = config.raw("config_groups", {})
    read = [_group(groups.section(name)) for name in names]
    ignored = _targets(config, "ignore")
    for key in ("sparsity_config", "transform_config"):
        if config.raw(key):
            raise config.fault(f"has a {key}, which is not supported with static activation scales")
    config.refuse_unread(_DESCRIPTIVE)

    def module_of(name: str, kind: str) -> Module | None:
        if ignored(name, kind):
            return None
        return next((module for matches, module in read if matches(name, kind)), None)

    return module_of


def _group(group: Settings) -> tuple[Callable[[str, str], bool], Module]:
    targets, weights = _targets(group, "targets"), group.section("weights")
    module = Module(_bits(weights), _is_static(group, "input_activations"), _is_static(group, "output_activations"))
    if (weights.text("type", "int"), weights.flag("symmetric", True), weights.flag("dynamic", False)) != (
        "int",
        True,
        False,
    ):
        raise group.fault("has weights that are no symmetric integers, which is not supported with static scales")
    if weights.text("strategy", "channel") not in ("channel", "group"):
        raise group.fault("scales weights by another strategy than channel or group, which is not supported")
    weights.skip("group_size")  # the shape of the scales says it
    weights.refuse_unread(_DESCRIPTIVE_OF_WEIGHTS)
    group.skip("format")  # the names of the parts say it
    group.refuse_unread()
    return targets, module


def _is_static(group: Settings, key: str) -> bool:
    """Whether activations are rounded to 8 bits with one static scale, the only way that is read."""
    if not group.has(key):
        group.skip(key)
        return False
    activations = group.section(key)
    kind = activations.integer("num_bits"), activations.text("type", "int"), activations.text("strategy", "tensor")
    plain = activations.flag("symmetric", True) and not activations.raw("dynamic", False)
    if kind != (8, "int", "tensor") or not plain:
        raise group.fault(f"rounds activations in another way than to one static scale of 8 bits ({group.name(key)})")
    activations.refuse_unread(("group_size", *_DESCRIPTIVE_OF_WEIGHTS))
    return True


def _targets(config: Settings, key: str) -> Callable[[str, str], bool]:
    """Names of modules, classes, or "re:" and a pattern that matches from the beginning."""
    names = config.texts(key) if config.has(key) else []
    patterns = [_compiled(name.removeprefix("re:"), config) for name in names if name.startswith("re:")]
    return lambda name, kind: name in names or kind in names or any(pattern.match(name) for pattern in patterns)


def _bits(config: Settings, default: int | None = None) -> int:
    bits = config.integer("num_bits", default)
    if bits not in BITS:
        raise config.fault(f"has weights of {bits} bits, which is not supported with static scales")
    return bits


def _compiled(pattern: str, config: Settings) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise config.fault(f"has a pattern for names of modules that is none: {pattern!r} ({error})") from error


def quantization_settings(described: Mapping[str, Any], path: Path) -> Settings:
    """A `quantization_config` as settings that are named as in config.json."""
    prefix = "quantization_config."
    return Settings({prefix + key: value for key, value in described.items()}, path, prefix)
