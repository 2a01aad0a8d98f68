"""The drafter that training starts from: one initialized from the target, or an existing one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from outrider.arrays import Floats
from outrider.backends import cpu
from outrider.checkpoints import Checkpoint, open_checkpoint
from outrider.checkpoints.config import AssistantConfig, ModelConfig
from outrider.checkpoints.hf.names import neutral_name
from outrider.errors import CheckpointError
from outrider.models.assistant import check_pair
from outrider.train.dataset import Dataset
from outrider.train.model import Drafter, DrafterShape, Samples, assistant_config, start_near

_SAMPLES = 60_000


def target_embedding(checkpoint: Checkpoint) -> Floats:
    """(vocabulary, backbone) float32 embedding of the target."""
    return _values(checkpoint, "embed_tokens.weight")


def active_tokens(data: Dataset) -> torch.Tensor:
    """The tokens whose rows of the head are trained, ascending: those that occur, or are among the three likeliest, at
    least twice."""
    named = np.concatenate([np.asarray(data.fields["top_tokens"][:, :3]).reshape(-1), data.fields["tokens"]])
    tokens, counts = np.unique(named, return_counts=True)
    return torch.from_numpy(tokens[counts > 1].astype(np.int64))


def new_drafter(target: Checkpoint, data: Dataset, shape: DrafterShape) -> Drafter:
    """A drafter initialized from its target; see `start_near`."""
    assert isinstance(target.config, ModelConfig)
    embedding = target_embedding(target)
    drafter = Drafter(assistant_config(target.config, shape), torch.from_numpy(embedding), active_tokens(data))
    start_near(drafter, embedding, samples_of(data, target.config.vocab_size))
    return drafter


def samples_of(data: Dataset, vocabulary: int) -> Samples:
    """Some 60,000 samples, from the first sequences."""
    fields, rows = data.fields, list[int]()
    for span in data.spans:
        rows += range(span.start + span.prompt_length - 1, span.start + span.length - 2)
        if len(rows) >= _SAMPLES:
            break
    at = np.array(rows)
    named, chances = fields["top_tokens"][at + 1], np.exp(fields["top_logprobs"][at + 1].astype(np.float64))
    return Samples(
        fields["hidden"][at].astype(np.float32),
        fields["tokens"][at + 1].astype(np.int64),
        fields["hidden"][at + 1].astype(np.float32),
        np.bincount(named.reshape(-1), weights=chances.reshape(-1), minlength=vocabulary).astype(np.float64),
    )


def fitting_drafter(target: ModelConfig, path: Path | str) -> tuple[Checkpoint, DrafterShape]:
    """An existing drafter, a folder or a GGUF file, that can be adapted to a target, and its shape.

    Raises:
        CheckpointError: it is not a drafter, or does not fit the target.
        UsageError: its shape cannot be exported; see `DrafterShape`.
    """
    known = open_checkpoint(path)
    if not isinstance(known.config, AssistantConfig):
        raise CheckpointError("is a model, not a drafter", path=known.path, remedy="Start from an MTP drafter")
    check_pair(target, known.config)
    text = known.config.text
    return known, DrafterShape(
        hidden=text.hidden_size,
        mlp=text.layers[0].mlp_width,
        layers=len(text.layers),
        heads=text.heads,
        clusters=known.config.num_centroids,
        top_clusters=known.config.centroid_top_k,
    )


def known_drafter(target: Checkpoint, data: Dataset, known: Checkpoint, shape: DrafterShape) -> Drafter:
    """An existing drafter in training; see `fitting_drafter`."""
    assert isinstance(target.config, ModelConfig)
    embedding = torch.from_numpy(target_embedding(target))
    drafter = Drafter(assistant_config(target.config, shape), embedding, active_tokens(data))
    state = {neutral_name(name): values for name, values in drafter.assistant.state_dict().items()}
    for name, tensor in known.tensors.items():
        if tensor.format == "I32":
            values: npt.NDArray[Any] = tensor.data.view("<i4").astype(np.int64)
        else:
            values = _values(known, name)
        state[name].copy_(torch.from_numpy(values).view_as(state[name]))
    with torch.no_grad():
        drafter.active_head.copy_(state["embed_tokens.weight"][drafter.active])
    return drafter


def _values(checkpoint: Checkpoint, name: str) -> Floats:
    tensor = checkpoint.tensors[name]
    rows, columns, scales = int(np.prod(tensor.shape[:-1])), tensor.shape[-1], tensor.scales
    beside = (scales.scale, scales.zero) if scales else (None, None)
    values: Floats = cpu.dequantize(tensor.format, rows, columns, tensor.data, *beside).reshape(tensor.shape)
    return values * np.float32(tensor.factor)
