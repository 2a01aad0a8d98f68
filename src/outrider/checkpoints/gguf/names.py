"""GGUF tensor names to neutral names, and back."""

from __future__ import annotations

import re

from outrider.checkpoints.tensors import AFTER_LAYERS, BEFORE_LAYERS, LAYER

ROPE_FREQS = "rope_freqs.weight"

# Vision and audio encoders, which some converters leave in the text model's file.
_IGNORED = ("v.", "a.", "mm.")
_OF_LAYER = re.compile(r"blk\.(\d{1,6})\.(.+)")
_NEUTRAL_OF_LAYER = re.compile(r"layers\.(\d{1,6})\.(.+)")
_GGUF_GLOBAL = {row.neutral: row.gguf for row in (*BEFORE_LAYERS, *AFTER_LAYERS)}
_GGUF_LAYER = {row.neutral: row.gguf for row in LAYER}
_GLOBAL = {gguf: neutral for neutral, gguf in _GGUF_GLOBAL.items()}
_LAYER = {gguf: neutral for neutral, gguf in _GGUF_LAYER.items()}


def neutral_name(name: str) -> str | None:
    """The neutral name of a GGUF tensor; the name itself if it is unknown; None if the text model does not use it.

    `rope_freqs.weight` is None too: `gguf_config` reads it into the config.
    """
    if name == ROPE_FREQS or name.startswith(_IGNORED):
        return None
    if match := _OF_LAYER.fullmatch(name):
        inner = _LAYER.get(match[2])
        return f"layers.{int(match[1])}.{inner}" if inner else name
    return _GLOBAL.get(name, name)


def weight_of(name: str) -> str | None:
    """The weight to which a tensor of scales (`.scale`, `.input_scale`) belongs; None for other tensors.

    Router and experts have a `.scale` of the architecture's own, which is not one of those.
    """
    base, _, kind = name.rpartition(".")
    return f"{base}.weight" if kind in ("scale", "input_scale") and neutral_name(name) == name else None


def gguf_name(neutral: str) -> str:
    """The GGUF name of a tensor.

    Raises:
        KeyError: no tensor has this neutral name.
    """
    if match := _NEUTRAL_OF_LAYER.fullmatch(neutral):
        return f"blk.{match[1]}.{_GGUF_LAYER[match[2]]}"
    return _GGUF_GLOBAL[neutral]
