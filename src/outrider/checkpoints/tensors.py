"""The tensors of the supported models: neutral name, name in GGUF files, shape, condition.

The neutral names are transformers'. A shape is written in the sizes of `validate.expected_shapes`. A model has a tensor
if its condition (a size, or none) and its shape have no size that is 0.
"""

from __future__ import annotations

from collections.abc import Container
from typing import NamedTuple

EMBEDDING, OWN_HEAD = "embed_tokens.weight", "lm_head.weight"


class Known(NamedTuple):
    """One row. `sizes` are those of its shape, then its condition."""

    neutral: str
    gguf: str
    shape: tuple[str, ...]
    sizes: tuple[str, ...]


def _rows(table: str) -> tuple[Known, ...]:
    cells = [line.split() for line in table.strip().splitlines()]
    return tuple(Known(name, gguf, tuple(s.split(",")), (*s.split(","), *when)) for name, gguf, s, *when in cells)


BEFORE_LAYERS = _rows("""
embed_tokens.weight                    token_embd.weight            vocabulary,hidden
embed_tokens_per_layer.weight          per_layer_token_embd.weight  vocabulary,layers*ple
per_layer_model_projection.weight      per_layer_model_proj.weight  layers*ple,hidden
per_layer_projection_norm.weight       per_layer_proj_norm.weight   ple
""")

LAYER = _rows("""
input_layernorm.weight                 attn_norm.weight             hidden
self_attn.q_proj.weight                attn_q.weight                queries,hidden
self_attn.q_norm.weight                attn_q_norm.weight           head
self_attn.k_proj.weight                attn_k.weight                keys,hidden
self_attn.k_norm.weight                attn_k_norm.weight           head                      keys
self_attn.v_proj.weight                attn_v.weight                values,hidden
self_attn.o_proj.weight                attn_output.weight           hidden,queries
post_attention_layernorm.weight        post_attention_norm.weight   hidden
pre_feedforward_layernorm.weight       ffn_norm.weight              hidden
mlp.gate_proj.weight                   ffn_gate.weight              mlp,hidden
mlp.up_proj.weight                     ffn_up.weight                mlp,hidden
mlp.down_proj.weight                   ffn_down.weight              hidden,mlp
post_feedforward_layernorm.weight      post_ffw_norm.weight         hidden
router.proj.weight                     ffn_gate_inp.weight          experts,hidden
router.scale                           ffn_gate_inp.scale           hidden                    experts
router.per_expert_scale                ffn_down_exps.scale          experts
experts.gate_up_proj                   ffn_gate_up_exps.weight      experts,2*expert,hidden
experts.down_proj                      ffn_down_exps.weight         experts,hidden,expert
post_feedforward_layernorm_1.weight    post_ffw_norm_1.weight       hidden                    experts
post_feedforward_layernorm_2.weight    post_ffw_norm_2.weight       hidden                    experts
pre_feedforward_layernorm_2.weight     pre_ffw_norm_2.weight        hidden                    experts
per_layer_input_gate.weight            inp_gate.weight              ple,hidden
per_layer_projection.weight            proj.weight                  hidden,ple
post_per_layer_input_norm.weight       post_norm.weight             hidden                    ple
layer_scalar                           layer_output_scale.weight    one                       gemma4
""")

STATIC_SCALES = ("input_scale", "output_scale")
"""X.input_scale and X.output_scale: one value each, the static scale of X.weight's activations; 0 for none."""

ROUNDED = (
    *(row.neutral.removesuffix(".weight") for row in LAYER if len(row.shape) == 2 and "router" not in row.neutral),
    "lm_head",
)
"""The matrices that may have static scales; those of a layer without its name."""

AFTER_LAYERS = _rows("""
norm.weight                            output_norm.weight           hidden
lm_head.weight                         output.weight                vocabulary,hidden         untied
pre_projection.weight                  nextn.pre_projection.weight  hidden,2*backbone
post_projection.weight                 nextn.post_projection.weight backbone,hidden
masked_embedding.centroids.weight      masked_embd_centroids.weight clusters,hidden
masked_embedding.token_ordering        masked_embd_ordering         vocabulary                clusters
""")


def head_of(names: Container[str]) -> str:
    """The matrix that makes logits, of a checkpoint with these tensors: its own head, else the embedding."""
    return OWN_HEAD if OWN_HEAD in names else EMBEDDING
