"""Opening a GGUF file as a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from outrider.arrays import Floats
from outrider.checkpoints.chat_template import one_source
from outrider.checkpoints.checkpoint import Checkpoint, Tensor
from outrider.checkpoints.config import AssistantConfig, ModelConfig
from outrider.checkpoints.gguf.config import gguf_config
from outrider.checkpoints.gguf.file import GGUFFile
from outrider.checkpoints.gguf.names import ROPE_FREQS, neutral_name, weight_of
from outrider.checkpoints.gguf.split import open_parts
from outrider.checkpoints.ignored import GGUF_TOKENIZER, keys
from outrider.checkpoints.sampling import GGUF, sampling_of
from outrider.checkpoints.settings import Settings
from outrider.checkpoints.tokenizer_tables import TokenizerTables
from outrider.checkpoints.validate import validate


def open_gguf(path: Path) -> Checkpoint:
    """The checkpoint in a .gguf file, or in all parts of a split one. Its weights stay there until they are used.

    Raises:
        CheckpointError: the file is truncated, foreign, of an unsupported architecture or quantization, or its
            tensors do not fit its settings.
    """
    parts = open_parts(path)
    file = parts[0]
    config = gguf_config(file)
    tensors: dict[str, Tensor] = {}
    left_out = len(file.skipped)
    for tensor in _with_factors(file):
        if (name := neutral_name(tensor.name)) in tensors:
            raise file.fault(f"holds the tensor {name} twice", "Convert it again")
        if name is not None:
            tensors[name] = replace(tensor, name=name)
        left_out += name is None and tensor.name != ROPE_FREQS
    files = tuple(part.path for part in parts)
    tensors = validate(config, tensors, path)
    recommended = sampling_of(Settings(file.values, file.path, "general.sampling."), GGUF)
    return Checkpoint(file.path, config, tensors, _tokenizer_tables(file, config), files, recommended, left_out)


def _with_factors(file: GGUFFile) -> Iterator[Tensor]:
    """The file's tensors, each weight in NVFP4 with the factor that its `.scale` holds.

    Its `.input_scale` is left out: it is for activations of 4 bits. Those of this program have 8, and a scale per 32
    that is made as they are computed.
    """
    scaled = {name for name, tensor in file.table.items() if tensor.format == "NVFP4"}
    for tensor in file.table.values():
        if tensor.name in scaled:
            yield replace(tensor, factor=_factor(file, tensor))
        elif weight_of(tensor.name) not in scaled:
            yield tensor


def _factor(file: GGUFFile, weight: Tensor) -> float | Floats:
    scale = file.table.get(weight.name.removesuffix("weight") + "scale")
    if scale is None or weight_of(scale.name) != weight.name:
        return 1.0
    count = math.prod(weight.shape[:-2])
    if scale.format != "F32" or scale.shape != (count,):
        problem = f"holds the tensor {scale.name} as {scale.format} {scale.shape}, not as F32 ({count},)"
        raise file.fault(problem, "Convert it again with a current converter")
    return scale.float32().reshape(count, 1, 1) if len(weight.shape) > 2 else float(scale.float32()[0])


def _tokenizer_tables(file: GGUFFile, config: ModelConfig | AssistantConfig) -> TokenizerTables | None:
    """The tokenizer's tables; None if the file has none."""
    settings = Settings(file.values, file.path, "tokenizer.ggml.")
    if not settings.has("tokens"):
        return None
    text = config.text if isinstance(config, AssistantConfig) else config
    model, tokens = settings.text("model"), settings.texts("tokens")
    if (size := len(tokens)) != text.vocab_size:
        raise settings.fault(f"names {size} tokens, but its embedding has {text.vocab_size} rows")
    scores = settings.array("scores", np.float32) if settings.has("scores") else None
    types = settings.array("token_type", np.int32) if settings.has("token_type") else None
    for key, column in (("scores", scores), ("token_type", types)):
        if column is not None and len(column) != size:
            raise settings.fault(f"has {len(column)} entries in {settings.name(key)} for {size} tokens")
    unknown, padding = (
        settings.integer(key, high=size - 1) if settings.has(key) else None
        for key in ("unknown_token_id", "padding_token_id")
    )
    add_space_prefix = settings.flag("add_space_prefix", model == "llama")  # the default of SentencePiece vocabularies
    merges = settings.texts("merges") if settings.has("merges") else None
    bos, eos = (settings.integer(key, high=size - 1) for key in ("bos_token_id", "eos_token_id"))
    settings.skip("eot_token_id", "eom_token_id", "suppress_tokens")  # the config has them
    settings.refuse_unread(keys(GGUF_TOKENIZER))
    key = "tokenizer.chat_template"
    templates = {"default": file.values.get(key), "tool_use": file.values.get(f"{key}.tool_use")}
    return TokenizerTables(
        model=model,
        tokens=tokens,
        scores=scores,
        token_types=types,
        merges=merges,
        bos_token_id=bos,
        eos_token_id=eos,
        unknown_token_id=unknown,
        # Every Gemma needs it. Some converters write `add_bos_token` false because the chat template writes the token.
        add_bos=True,
        add_space_prefix=add_space_prefix,
        chat_template=one_source({name: source for name, source in templates.items() if source is not None}),
        padding_token_id=padding,
    )
