"""The drafter in training: transformers' `gemma4_assistant`, shaped for a target and initialized from it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers
from torch import Tensor, nn

from outrider.arrays import Floats
from outrider.checkpoints.checkpoint import BLOCKS
from outrider.checkpoints.config import Layer, ModelConfig, last_kv_layers
from outrider.errors import UsageError

SLIDING, FULL = "sliding_attention", "full_attention"
_BLOCK_GAIN = 0.1
"""Initial weight of the norms after attention and MLP: small, because their outputs are still noise."""


@dataclass(frozen=True)
class DrafterShape:
    """The free dimensions of a drafter; key-value heads, positions and vocabulary follow from the target.

    Args:
        clusters: of its head; 0 for a head that scores the whole vocabulary.

    Raises:
        UsageError: `hidden` or `mlp` is no multiple of 32.
    """

    hidden: int = 256
    mlp: int = 2048
    layers: int = 4
    heads: int = 4
    clusters: int = 2048
    top_clusters: int = 32

    def __post_init__(self) -> None:
        block, _ = BLOCKS["Q4_0"]  # as of Q8_0
        for name, width in (("hidden size", self.hidden), ("intermediate size", self.mlp)):
            if width % block:
                raise UsageError(
                    f"a drafter's {name} must be a multiple of {block}, the block of its weights, not {width}"
                )


def assistant_config(target: ModelConfig, shape: DrafterShape) -> transformers.Gemma4AssistantConfig:
    """The transformers config of a drafter for `target`.

    Raises:
        UsageError: the number of clusters does not divide the target's vocabulary.
    """
    if shape.clusters and target.vocab_size % shape.clusters:
        raise UsageError(
            f"{shape.clusters} clusters do not divide a vocabulary of {target.vocab_size}: choose a divisor"
        )
    sliding, full = (target.layers[last_kv_layers(target)[kind]] for kind in ("sliding", "full"))
    arguments: dict[str, Any] = dict(
        vocab_size=target.vocab_size,
        hidden_size=shape.hidden,
        intermediate_size=shape.mlp,
        num_hidden_layers=shape.layers,
        layer_types=[SLIDING] * (shape.layers - 1) + [FULL],
        num_attention_heads=shape.heads,
        num_key_value_heads=sliding.kv_heads,
        num_global_key_value_heads=full.kv_heads,
        attention_k_eq_v=sliding.kv_heads != full.kv_heads,  # lets them differ; a drafter computes no keys
        head_dim=sliding.head_dim,
        global_head_dim=full.head_dim,
        sliding_window=sliding.window,
        max_position_embeddings=target.context_length,
        rope_parameters={SLIDING: _rope(sliding), FULL: _rope(full)},
        rms_norm_eps=target.rms_norm_eps,
        hidden_size_per_layer_input=0,
        vocab_size_per_layer_input=0,
        num_kv_shared_layers=shape.layers,
        bos_token_id=target.bos_token_id,
        eos_token_id=list(target.end_token_ids),
    )
    text = transformers.Gemma4TextConfig(**arguments)
    return transformers.Gemma4AssistantConfig(
        text_config=text,
        backbone_hidden_size=target.hidden_size,
        use_ordered_embeddings=shape.clusters > 0,
        num_centroids=shape.clusters,
        centroid_intermediate_top_k=shape.top_clusters,
    )


def _rope(layer: Layer) -> dict[str, Any]:
    """The rotary embedding of the target's layer: queries must be rotated like the target's keys."""
    rope = layer.rope
    if rope.rotated != rope.dims:
        return {
            "rope_type": "proportional",
            "rope_theta": rope.theta,
            "partial_rotary_factor": rope.rotated / rope.dims,
        }
    if rope.factor != 1.0:
        return {"rope_type": "linear", "factor": rope.factor, "rope_theta": rope.theta}
    return {"rope_type": "default", "rope_theta": rope.theta}


@dataclass(frozen=True)
class Samples:
    """Positions of the data from which a drafter is initialized.

    Attributes:
        states: (samples, backbone) the target's hidden state.
        tokens: (samples,) the token after it.
        following: (samples, backbone) the hidden state at that token.
        shares: (vocabulary,) summed probability of each token in the target's distributions.
    """

    states: Floats
    tokens: npt.NDArray[np.int64]
    following: Floats
    shares: npt.NDArray[np.float64]


class Drafter(nn.Module):
    """A drafter in training. The head's rows of `active` tokens are trained; the others keep their initial values.

    Args:
        config: see `assistant_config`.
        embedding: (vocabulary, backbone) the target's, not trained.
        active: (active,) token ids, ascending.
    """

    def __init__(self, config: transformers.Gemma4AssistantConfig, embedding: Tensor, active: Tensor) -> None:
        super().__init__()
        self.assistant = transformers.Gemma4AssistantForCausalLM(config)
        self.assistant.requires_grad_(True)
        head = self.assistant.model.embed_tokens.weight
        head.requires_grad_(False)
        self.active: Tensor
        self.register_buffer("active", active)
        self.active_head = nn.Parameter(head[active].clone())
        self._embedding, self._scale = embedding, math.sqrt(config.backbone_hidden_size)

    def step(
        self,
        tokens: Tensor,
        state: Tensor,
        positions: Tensor,
        kv: dict[str, tuple[Tensor, Tensor]],
        mask: dict[str, Tensor],
    ) -> tuple[Tensor, Tensor]:
        """One step of all rounds: (batch, rounds, hidden) input of the head, (batch, rounds, backbone) next state.

        Args:
            tokens: (batch, rounds) the last token of each round.
            state: (batch, rounds, backbone) the target's hidden state, or the last step's next state.
            positions: (batch, rounds), the same through a round.
            kv: kind -> keys and values (batch, kv_heads, positions, head_dim).
            mask: kind -> (batch, 1, rounds, positions), True where a round sees a position.
        """
        embedded = self._embedding[tokens].float() * self._scale
        x = self.assistant.pre_projection(torch.cat([embedded, state], -1))
        out = self.assistant.model(
            inputs_embeds=x,
            attention_mask=mask,
            position_ids=positions,
            shared_kv_states=kv,
            use_cache=False,
            logits_to_keep=slice(None),  # all; with an int the model keeps the last rounds only
        ).last_hidden_state
        return out, self.assistant.post_projection(out)

    @torch.no_grad()
    def head(self) -> Tensor:
        """(vocabulary, hidden) head, with the trained rows."""
        head: Tensor = self.assistant.model.embed_tokens.weight
        head[self.active] = self.active_head
        return head


@torch.no_grad()
def start_near(drafter: Drafter, embedding: Floats, head: Floats, samples: Samples) -> None:
    """Initialize a drafter as the best linear drafter for its target, instead of at random.

    The logits of the target are E h. The error of a low-rank approximation is weighted by D, the tokens' shares of the
    target's probability. The best one of rank `hidden` is U z with z = V' L^-1 h, from the singular value decomposition
    of D^1/2 (E - mean) L, where L L' is the second moment of h. (With equal weights, 192 of the demo model's 640
    directions keep its likeliest token at 53 % of positions; with D, at 72 %.) So the head starts as U, the output
    projection as h = L V z, and the input projection as the least-squares prediction of the next z.

    Args:
        embedding, head: (vocabulary, backbone) of the target; one matrix if they are tied.
    """
    a, rank = drafter.assistant, drafter.assistant.model.embed_tokens.weight.shape[1]
    following = samples.following.astype(np.float64)
    values, vectors = np.linalg.eigh(following.T @ following / len(following))
    spread = np.sqrt(np.maximum(values, 1e-6 * values[-1]))
    root, inverse = vectors * spread, (vectors / spread).T
    share = samples.shares / samples.shares.sum()
    centred = (head - share @ head).astype(np.float32)  # a shift of all logits changes nothing
    used = np.flatnonzero(share > 0)
    weighted = centred[used] * np.sqrt(share[used, None])
    _, right = np.linalg.eigh(root.T @ (weighted.T @ weighted) @ root)
    right = right[:, ::-1][:, :rank]
    back, onto = root @ right, right.T @ inverse  # (backbone, rank), (rank, backbone)

    scale = math.sqrt(embedding.shape[1])
    given = np.concatenate([embedding[samples.tokens] * scale, samples.states], axis=1)
    square = (given.T @ given).astype(np.float64)
    square[np.diag_indices_from(square)] += 1e-3 * np.trace(square) / len(square)
    wanted = following @ onto.T
    guess = np.linalg.solve(square, given.T.astype(np.float64) @ wanted)  # (2 * backbone, rank)
    a.pre_projection.weight.copy_(torch.from_numpy(guess.T))
    # The final norm scales predictions to unit RMS; `trust` restores their own, so that weak ones give flat logits.
    trust = float(np.sqrt(np.mean((given @ guess) ** 2)))
    low_rank = torch.from_numpy((centred @ (trust * back)).astype(np.float32))
    a.model.embed_tokens.weight.copy_(low_rank)
    drafter.active_head.copy_(low_rank[drafter.active])
    a.post_projection.weight.copy_(torch.from_numpy(trust * back))
    for layer in a.model.layers:
        nn.init.constant_(layer.self_attn.q_norm.weight, layer.self_attn.head_dim**-0.5)
        nn.init.constant_(layer.post_attention_layernorm.weight, _BLOCK_GAIN)
        nn.init.constant_(layer.post_feedforward_layernorm.weight, _BLOCK_GAIN)
