"""Tensor names in a Hugging Face folder -> neutral names."""

from __future__ import annotations

# Longest first: a multimodal checkpoint nests the text model, in one of two orders.
PREFIXES = ("model.language_model.", "language_model.model.", "language_model.", "model.")
_OTHER_MODALITIES = ("vision_tower.", "audio_tower.", "embed_vision.", "embed_audio.", "multi_modal_projector.")


def neutral_name(name: str) -> str | None:
    """The neutral name of a tensor; None if the text model does not use it."""
    if name.removeprefix("model.").startswith(_OTHER_MODALITIES):
        return None
    for prefix in PREFIXES:
        if name.startswith(prefix):
            return name[len(prefix) :]
    return name
