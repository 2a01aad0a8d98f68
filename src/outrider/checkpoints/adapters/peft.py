"""A LoRA adapter in a folder as PEFT saves it: adapter_config.json and adapter_model.safetensors.

Reference: huggingface/peft, "Checkpoint format", and tuners/lora. The scale is alpha / r, or alpha / sqrt(r) with
`use_rslora`; the rank is read from the tensors, alpha from `alpha_pattern` or `lora_alpha`.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

from outrider.checkpoints.adapters.adapter import Adapter, assembled
from outrider.checkpoints.checkpoint import FLOAT_FORMATS, Tensor
from outrider.checkpoints.config import ModelConfig
from outrider.checkpoints.hf.json_file import read_json
from outrider.checkpoints.hf.names import neutral_name
from outrider.checkpoints.hf.safetensors_file import StoredTensor, read_safetensors
from outrider.checkpoints.settings import Settings
from outrider.errors import CheckpointError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

_HALF = re.compile(r"base_model\.model\.(?P<module>.+?)(\.base_layer)?\.lora_(?P<half>[AB])\.weight")
_PLAIN = "Use a plain LoRA adapter, or merge it into the checkpoint with PEFT's merge_and_unload()"
_REFUSED = {
    "use_dora": "is a DoRA adapter",
    "fan_in_fan_out": "stores its matrices transposed (fan_in_fan_out)",
    "lora_bias": "has biases (lora_bias)",
    "layer_replication": "repeats layers of its base model (layer_replication)",
    "alora_invocation_tokens": "is an activated LoRA (aLoRA)",
    "modules_to_save": "holds whole modules (modules_to_save)",
    "target_parameters": "adapts parameters that are no linear layer's (target_parameters)",
    "trainable_token_indices": "changes embeddings of tokens (trainable_token_indices)",
    "use_qalora": "is a QALoRA adapter",
}
"""Settings that would change what is computed, where they are not empty or false."""
_DESCRIPTIVE = frozenset(
    """
    auto_mapping base_model_name_or_path corda_config ensure_weight_tying eva_config exclude_modules inference_mode
    layers_pattern layers_to_transform loftq_config lora_dropout megatron_config megatron_core peft_version
    qalora_group_size r rank_pattern revision runtime_config target_modules task_type
    """.split()  # noqa: SIM905 (a list would take a line per word)
)
"""Settings of training, and those that the tensors' names and shapes repeat."""
_INITIALIZATIONS = (True, "gaussian", "eva", "orthogonal")
"""Those that leave the base model as it is; with others, the adapter fits a base model that training changed."""
_MOST_PATTERN, _MOST_REPEATS = 200, 3


def open_peft(path: Path, config: ModelConfig) -> Adapter:
    """The adapter in a folder. Raises CheckpointError: see `open_adapter`."""
    file = path / CONFIG
    if not file.is_file():
        problem = f"has no {CONFIG}"
        raise CheckpointError(problem, path=path, remedy="Pass the folder that PEFT's save_pretrained() wrote")
    # What is empty or false counts as missing: the file has every setting, and most are off. A number is never off.
    given = {key: value for key, value in read_json(file).items() if value or type(value) in (int, float)}
    settings = Settings(given, file)
    if (kind := settings.text("peft_type")) != "LORA":
        raise settings.fault(f"is a PEFT adapter of type {kind!r}, which is not supported", "Use a LoRA adapter")
    for key, problem in _REFUSED.items():
        if settings.raw(key):
            raise settings.fault(f"{problem}, which is not supported", _PLAIN)
    if (bias := settings.text("bias", "none")) != "none":
        raise settings.fault(f"has biases (bias {bias!r}), which are not supported", _PLAIN)
    if (start := settings.raw("init_lora_weights", True)) not in _INITIALIZATIONS:
        problem = f"began as {start!r} (init_lora_weights), so its base model is not the published one"
        raise settings.fault(problem, "Convert it to a plain LoRA adapter with PEFT, or merge it into its base model")
    alpha, by_pattern, root = settings.number("lora_alpha", 8), _alphas(settings), settings.flag("use_rslora", False)
    settings.refuse_unread(_DESCRIPTIVE)
    halves, modules, left_out = _halves(path)

    def scale(name: str, rank: int) -> float:
        matched = next((value for pattern, value in by_pattern if pattern.fullmatch(modules[name])), alpha)
        return matched / (math.sqrt(rank) if root else rank)

    return assembled(path, (file, path / WEIGHTS), config, halves, scale, left_out)


def _halves(path: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, str], int]:
    """By neutral name of a matrix its tensors "a" and "b", and its module; and the number of encoders' matrices."""
    weights = path / WEIGHTS
    if not weights.is_file():
        problem = f"has no {WEIGHTS}"
        raise CheckpointError(
            problem, path=path, remedy="Save it with safe_serialization=True (.bin files can run code)"
        )
    halves, modules, left_out = dict[str, dict[str, Tensor]](), dict[str, str](), 0
    for stored in read_safetensors(weights).values():
        match = _HALF.fullmatch(stored.name)
        if match is None:
            raise CheckpointError(f"{_what(stored.name)}, which is not supported", path=weights, remedy=_PLAIN)
        name, half = neutral_name(f"{match['module']}.weight"), match["half"].lower()
        if name is None:
            left_out += half == "a"
            continue
        if modules.setdefault(name, match["module"]) != match["module"]:
            problem = f"adapts {name} twice, as {modules[name]} and as {match['module']}"
            raise CheckpointError(problem, path=weights, remedy="Save the adapter again")
        halves.setdefault(name, {})[half] = _tensor(stored, name, weights)
    return halves, modules, left_out


def _what(name: str) -> str:
    """What a tensor that is no LoRA matrix of a linear layer means."""
    if ".lora_embedding_" in name:
        return f"adapts an embedding ({name})"
    if ".lora_magnitude_vector" in name:
        return f"is a DoRA adapter ({name})"
    return f"holds the tensor {name}, no LoRA matrix of a linear layer"


def _tensor(stored: StoredTensor, name: str, path: Path) -> Tensor:
    if stored.dtype not in FLOAT_FORMATS:
        problem = f"stores {stored.name} as {stored.dtype}, which is not supported"
        raise CheckpointError(problem, path=path, remedy="Save it as F32, F16 or BF16")
    return Tensor(name, stored.dtype, stored.shape, stored.data)


def _alphas(settings: Settings) -> list[tuple[re.Pattern[str], float]]:
    """Pattern of module names -> alpha, in the file's order, matched as PEFT matches them."""
    if not settings.has("alpha_pattern"):
        return []
    section, found = settings.section("alpha_pattern"), []
    for key in settings.raw("alpha_pattern"):
        # A pattern is the file's: one that could take long to match is refused.
        if len(key) > _MOST_PATTERN or sum(map(key.count, "*+{?")) > _MOST_REPEATS or re.search(r"\)[*+{?]", key):
            raise settings.fault(f"has a pattern that is not supported ({key!r:.80})", _PLAIN)
        try:
            pattern = re.compile(rf"(.*\.)?({key})")
        except (re.error, OverflowError, RecursionError) as error:
            raise settings.fault(f"has a pattern that cannot be read ({key!r:.80}: {error})") from error
        found.append((pattern, section.number(key)))
    return found
