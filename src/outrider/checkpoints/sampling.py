"""The sampling parameters that a checkpoint recommends: what a request gets that sets none."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from outrider.checkpoints.ignored import GENERATION, keys
from outrider.checkpoints.settings import Settings
from outrider.errors import CheckpointError

_log = logging.getLogger("outrider.checkpoints")

SamplingDefaults = Mapping[str, Any]
"""Fields of `SamplingParams` -> values."""
NONE: SamplingDefaults = MappingProxyType({})

_NUMBERS = {
    "temperature": (0.0, 100.0),
    "top_p": (1e-6, 1.0),
    "min_p": (0.0, 1.0),
    "typical_p": (1e-6, 1.0),
    "repetition_penalty": (0.01, 100.0),
    "presence_penalty": (-100.0, 100.0),
    "frequency_penalty": (-100.0, 100.0),
}
"""Fields of `SamplingParams`, with their least and largest values."""
_INTEGERS = {"top_k": -1, "max_tokens": -2, "min_tokens": 0}
"""Fields with their least values: -1 of top_k, and all below 1 of max_tokens, are no limit."""
_FILTERS = ("top_k", "top_p", "min_p", "typical_p")
_MOST_STOP_TEXTS = 64
_TRANSFORMERS_TOP_K = 50
_OFF: tuple[Any, ...] = (0, False, "", [], ())


@dataclass(frozen=True)
class Dialect:
    """How one kind of file writes sampling parameters.

    Attributes:
        fields: key -> the field of `SamplingParams` that it sets.
        harmless: keys that change no text of this program.
        neutral: key -> the values with which it changes nothing, where those are not 0, false or empty. Every other key
            that is in neither table would change the text and is not supported.
    """

    fields: Mapping[str, str]
    harmless: frozenset[str]
    neutral: Mapping[str, tuple[Any, ...]]


_SAME = {name: name for name in ("temperature", "top_k", "top_p", "min_p", "typical_p")}
GENERATION_CONFIG = Dialect(
    _SAME
    | {
        "repetition_penalty": "repetition_penalty",
        "max_new_tokens": "max_tokens",
        "min_new_tokens": "min_tokens",
        "stop_strings": "stop",
    },
    frozenset({*keys(GENERATION), "do_sample", "eos_token_id", "suppress_tokens", "begin_suppress_tokens"}),
    {"num_beams": (1,), "encoder_repetition_penalty": (1,), "guidance_scale": (1,)},
)
"""generation_config.json of transformers. The harmless ones are ignored, or read elsewhere."""

_LLAMA_CPP = {"penalty_last_n": (-1,), "repeat_last_n": (-1,), "tfs_z": (1,)}
GGUF = Dialect(
    {
        "temp": "temperature",
        "top_k": "top_k",
        "top_p": "top_p",
        "min_p": "min_p",
        "penalty_repeat": "repetition_penalty",
    },
    frozenset({"xtc_threshold", "mirostat_tau", "mirostat_eta"}),
    _LLAMA_CPP,
)
"""`general.sampling.*` of GGUF files. The harmless ones are settings of samplers that another key switches on."""

OLLAMA = Dialect(
    _SAME
    | {
        "repeat_penalty": "repetition_penalty",
        "presence_penalty": "presence_penalty",
        "frequency_penalty": "frequency_penalty",
        "num_predict": "max_tokens",
        "stop": "stop",
    },
    frozenset(
        """
        num_ctx num_keep num_batch num_gpu main_gpu low_vram f16_kv logits_all vocab_only use_mmap use_mlock numa
        num_thread embedding_only penalize_newline draft_num_predict mirostat_tau mirostat_eta
        """.split()  # noqa: SIM905 (a list would take a line per word)
    ),
    _LLAMA_CPP,
)
"""The parameters of an Ollama model. The harmless ones are of its runner."""


def sampling_of(settings: Settings, dialect: Dialect, others: SamplingDefaults = NONE) -> SamplingDefaults:
    """Fields of `SamplingParams` -> what a file sets; fields that it does not set are those of `others`.

    The temperature is 1 where only filters are set, and 0 where `do_sample` is false. With `do_sample` and no `top_k`,
    transformers samples from the 50 most likely tokens, and so does this program. A value that is out of its range is
    not used, nor is one that is not supported; each is logged.
    """
    found = dict(others)
    for key, name in dialect.fields.items():
        try:
            if settings.has(key):
                found[name] = _value(settings, key, name)
        except CheckpointError as error:
            _log.warning("A sampling default is not used: %s", error)
    if found.get("max_tokens", 1) < 1:
        del found["max_tokens"]
    _report_unsupported(settings, dialect)
    sampled = settings.flag("do_sample") if settings.has("do_sample") else None
    if sampled is False:
        return found | {"temperature": 0.0}
    if sampled is True and not settings.has("top_k"):
        found["top_k"] = _TRANSFORMERS_TOP_K
    if any(name in found for name in _FILTERS):
        found.setdefault("temperature", 1.0)
    return found


def _value(settings: Settings, key: str, name: str) -> Any:
    if name in _INTEGERS:
        return settings.integer(key, low=_INTEGERS[name])
    if name in _NUMBERS:
        low, high = _NUMBERS[name]
        return settings.number(key, low=low, high=high)
    texts = [settings.text(key)] if isinstance(settings.raw(key), str) else settings.texts(key)
    if not all(texts) or len(texts) > _MOST_STOP_TEXTS:
        raise settings.fault(f"{settings.name(key)} has an empty text, or more than {_MOST_STOP_TEXTS}")
    return tuple(texts)


def _report_unsupported(settings: Settings, dialect: Dialect) -> None:
    """One warning that names all settings that would change the text."""
    left = []
    for name in settings.unread(dialect.harmless):
        key = name.removeprefix(settings.name(""))
        value = settings.raw(key)
        if isinstance(value, np.ndarray) or value not in dialect.neutral.get(key, _OFF):
            left.append(name)
    if left:
        problem = "sampling settings that would change the text are not supported and not used"
        _log.warning("%s: %s: %s", settings.path, problem, ", ".join(left))
