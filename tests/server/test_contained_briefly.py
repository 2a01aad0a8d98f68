"""A short run of `make contained`: requests that do not fit into a container's memory together are all answered."""

from __future__ import annotations

import pytest
import transformers
from gguf import GGMLQuantizationType as Type
from server.contained import NoGroupError, random_prompts, serve_contained
from tiny_checkpoints import FULL, SLIDING, VARIANTS, VOCAB, randomized, save_gguf

MIB = 1 << 20
FAT = {
    **VARIANTS["gemma4-dense"],
    "num_hidden_layers": 4,
    "layer_types": [SLIDING, FULL, FULL, FULL],
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "global_head_dim": 128,
}
"""24 KiB for each position in float32: 2,000 tokens take 48 MiB."""


@pytest.mark.slow
def test_a_server_lives_in_little_memory_and_answers_or_refuses(tmp_path):
    config = transformers.Gemma4TextConfig(**FAT)
    model = save_gguf(randomized(transformers.Gemma4ForCausalLM(config), 0), tmp_path / "fat.gguf", Type.Q8_0)
    prompts = [*random_prompts(8, 2000, VOCAB), *random_prompts(1, 3500, VOCAB)]
    options = ["--kv-cache-dtype", "float32", "--context", "3000", "--queue-timeout", "0"]
    try:
        seen = serve_contained(str(model), 350 * MIB, prompts, options)
    except NoGroupError as error:
        pytest.skip(str(error))
    assert seen.lived
    *fitting, too_long = seen.outcomes
    assert [outcome.status for outcome in fitting] == [200] * 8, fitting
    assert too_long.status == 400
    assert "3000" in too_long.said.replace(",", "")
    assert seen.peak <= 350 * MIB
