"""The sampling parameters that a checkpoint recommends."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from types import MappingProxyType

from outrider.checkpoints.settings import Settings
from outrider.errors import CheckpointError

_log = logging.getLogger("outrider.checkpoints")
_RANGES = {
    "temperature": (0.0, 100.0),
    "top_k": (-1, 1 << 31),  # 0 and -1: off
    "top_p": (1e-6, 1.0),
    "min_p": (0.0, 1.0),
    "typical_p": (1e-6, 1.0),
    "repetition_penalty": (0.01, 100.0),
}
"""Fields of `SamplingParams`, with their least and largest values."""


def sampling_of(settings: Settings, spelled: Mapping[str, str] = MappingProxyType({})) -> dict[str, float]:
    """Fields of `SamplingParams` -> what a generation_config.json or `general.sampling` sets.

    Without `do_sample`, or with it true, the temperature is 1 where only others are set; with it false, it is 0. A
    value that is out of its range is not used, which is logged.

    Raises:
        CheckpointError: `do_sample` is neither true nor false.

    Args:
        spelled: field -> key, where the two differ.
    """
    found: dict[str, float] = {}
    for name, (low, high) in _RANGES.items():
        key = spelled.get(name, name)
        try:
            if name == "top_k" and settings.has(key):
                found[name] = settings.integer(key, low=int(low), high=int(high))
            elif settings.has(key):
                found[name] = settings.number(key, low=low, high=high)
        except CheckpointError as error:
            _log.warning("A sampling default is not used: %s", error)
    sampled = settings.flag("do_sample") if settings.has("do_sample") else None
    if sampled is False:
        return found | {"temperature": 0.0}
    return {"temperature": 1.0} | found if found or sampled else found
