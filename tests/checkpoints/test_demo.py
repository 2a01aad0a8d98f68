"""The demo model: its facts, and the time it takes to open."""

from __future__ import annotations

import time

from outrider.checkpoints import ModelConfig, TokenizerTables, open_checkpoint


def test_demo_opens_with_its_known_facts() -> None:
    checkpoint = open_checkpoint("demo")
    config, tables = checkpoint.config, checkpoint.tokenizer
    assert isinstance(config, ModelConfig)
    assert (config.architecture, config.vocab_size, config.hidden_size, config.heads) == ("gemma3", 262144, 640, 4)
    assert [index for index, layer in enumerate(config.layers) if layer.kind == "full"] == [5, 11, 17]
    assert {layer.window for layer in config.layers} == {512, None}
    assert config.layers[0].rope.theta == 1e4
    assert config.layers[5].rope.theta == 1e6
    assert config.rms_norm_eps == 1e-6
    assert config.attention_scale == 256**-0.5
    assert config.end_token_ids == (1,)
    formats = {tensor.format for tensor in checkpoint.tensors.values()}
    assert formats == {"F32", "Q8_0", "Q5_0", "Q4_K", "Q6_K"}
    assert isinstance(tables, TokenizerTables)
    assert len(tables.tokens) == 262144
    assert tables.tokens[106] == "<end_of_turn>"


def test_demo_opens_in_well_under_a_second() -> None:
    """Processor time, median of five; some 0.15 s, and 11 s with the gguf package's reader."""
    times = []
    for _ in range(5):
        start = time.process_time()
        open_checkpoint("demo")
        times.append(time.process_time() - start)
    assert sorted(times)[2] < 0.6
