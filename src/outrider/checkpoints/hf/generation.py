"""generation_config.json: what it may hold besides end tokens, suppressed tokens and sampling parameters."""

from __future__ import annotations

from outrider.checkpoints.ignored import GENERATION, keys
from outrider.checkpoints.settings import Settings

_NEUTRAL = {
    "diversity_penalty": 0.0,
    "early_stopping": False,
    "encoder_no_repeat_ngram_size": 0,
    "encoder_repetition_penalty": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "guidance_scale": 1.0,
    "length_penalty": 1.0,
    "min_length": 0,
    "no_repeat_ngram_size": 0,
    "num_beam_groups": 1,
    "num_beams": 1,
    "remove_invalid_values": False,
    "renormalize_logits": False,
    "token_healing": False,
}
"""Settings that are not supported, with the value that changes nothing."""


def refuse_other_generation(generation: Settings) -> None:
    """Refuse a setting that would change answers and is not supported, such as beams, forced tokens or stop texts.

    Args:
        generation: after those that are supported were read.

    Raises:
        CheckpointError: names the settings.
    """
    neutral = [key for key, value in _NEUTRAL.items() if generation.raw(key, value) == value]
    unsupported = [key for key in _NEUTRAL if key not in neutral]
    if unsupported:
        shown = ", ".join(f"{key}: {generation.raw(key)!r}"[:60] for key in unsupported)
        remedy = "Remove them from the file if answers may do without"
        raise generation.fault(f"sets {shown}, which is not supported", remedy)
    generation.refuse_unread(keys(GENERATION))
