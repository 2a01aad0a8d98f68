"""`outrider inspect` on small checkpoints of known shape."""

from __future__ import annotations

import json

import pytest
from tiny_checkpoints import make_assistant, save_folder

from outrider.backends import cpu
from outrider.backends.cpu import PAGE_POSITIONS, KvPages, kv_shapes
from outrider.cache import bytes_per_position
from outrider.checkpoints import open_checkpoint
from outrider.checkpoints.traffic import weight_traffic
from outrider.cores import cores
from outrider.models.gemma import kv_layers
from outrider.roofline.hardware import Hardware


def test_json_adds_up(tiny, call):
    path = tiny("gemma4-e2b").gguf
    found = json.loads(call("inspect", str(path), "--json").out)
    checkpoint = open_checkpoint(path)
    assert found["architecture"] == "gemma4"
    assert found["weight_bytes"] == sum(tensor.data.nbytes for tensor in checkpoint.tensors.values())
    assert sum(group["count"] for group in found["layers"]) == len(checkpoint.config.layers)
    table = checkpoint.tensors["embed_tokens_per_layer.weight"]
    assert found["gathered_table_bytes"] == table.data.nbytes
    assert found["bytes_read_per_token"] < found["weight_bytes"] - table.data.nbytes


def test_text_names_what_matters(tiny, call):
    ran = call("inspect", str(tiny("gemma4-e2b").folder))
    assert ran.code == 0
    for said in ("gemma4", "sliding layer", "full layer", "read per token", "keys and values", "vocabulary"):
        assert said in ran.out


def test_the_sampling_defaults_are_shown(tiny, call, copy_of):
    folder = copy_of(tiny("gemma3").folder)
    (folder / "generation_config.json").write_text('{"top_p": 0.95, "stop_strings": ["END"]}')
    assert 'top_p 0.95, stop ["END"], temperature 1.0' in call("inspect", str(folder)).out
    assert json.loads(call("inspect", str(folder), "--json").out)["sampling"]["stop"] == ["END"]


def test_a_token_reads_only_its_experts(tiny):
    checkpoint = open_checkpoint(tiny("gemma4-moe").gguf)
    traffic = weight_traffic(checkpoint.tensors, checkpoint.config)
    experts = checkpoint.config.experts
    stacks = sum(tensor.data.nbytes for name, tensor in checkpoint.tensors.items() if ".experts." in name)
    assert stacks > 0
    assert traffic.swept - traffic.per_token == stacks - stacks * experts.top_k // experts.count


def test_a_drafters_step_reads_only_the_clusters_that_it_scores(tiny):
    checkpoint = open_checkpoint(tiny("assistant-centroids").gguf)
    traffic = weight_traffic(checkpoint.tensors, checkpoint.config)
    head = checkpoint.tensors["embed_tokens.weight"].data.nbytes
    assert traffic.swept - traffic.per_token == head - head * 4 // 16


def test_shared_layers_keep_no_keys_and_values(tiny):
    config = open_checkpoint(tiny("gemma4-e2b").gguf).config
    own = [layer for i, layer in enumerate(config.layers) if layer.kv_source == i and layer.kind == "full"]
    assert bytes_per_position(kv_layers(config), "float16")["full"] == sum(4 * x.kv_heads * x.head_dim for x in own)


def test_what_a_context_takes(tiny, call):
    path = tiny("gemma4-e2b").folder
    found = json.loads(call("inspect", str(path), "--json").out)
    assert list(found["context_bytes"]) == ["4096"]  # its own limit, which lies below 8k
    assert found["memory_bytes"]["4096"] > found["context_bytes"]["4096"] > 0
    pages = KvPages(kv_shapes(kv_layers(open_checkpoint(path).config)), "int8")
    (window,) = [window for window in pages.windows if window]
    counts = [-(-(window + 256) // PAGE_POSITIONS) + 1 if own else 4096 // PAGE_POSITIONS for own in pages.windows]
    assert found["context_bytes"]["4096"] == sum(n * pages.page_bytes(group) for group, n in enumerate(counts))


def test_the_drafter_that_fits_is_named(tiny, call, copy_of):
    folder = copy_of(tiny("gemma4-e2b").folder)
    assert "no MTP drafter found" in call("inspect", str(folder)).out
    drafter = make_assistant(tiny("gemma4-e2b").model.config, ordered=True)
    save_folder(drafter, folder.with_name(f"{folder.name}-assistant"))
    found = json.loads(call("inspect", str(folder), "--json").out)
    assert found["drafter_path"].endswith("-assistant")
    assert "beside the model" in found["drafter_why"]


def test_the_recorded_pass_can_be_read(tiny, call):
    shown = call("inspect", str(tiny("gemma4-moe").folder), "--program").out
    assert "buffer             x  width=64\n" in shown
    assert "  weight=layers.5.experts.gate_up_proj  dst=expert gated\n" in shown
    refused = call("inspect", str(tiny("assistant-dense").folder), "--program")
    assert "name the target instead" in refused.err
    assert refused.code == 2


@pytest.fixture
def measured(monkeypatch):
    """Instruction sets in the order in which they are measured, each with a made-up rate."""
    rates: dict[str, float] = {}

    def measure(_format: str, _threads: int) -> Hardware:
        rates[cpu.instruction_set()] = 1e9 * (7 + len(rates))
        return Hardware("made up", 5e9, rates[cpu.instruction_set()])

    monkeypatch.setattr("outrider.roofline.measured.measure_hardware", measure)
    return rates


def test_the_machine_lists_what_each_instruction_set_reaches(call, measured):
    used = cpu.instruction_set()
    found = json.loads(call("inspect", "--machine", "--json").out)
    assert cpu.instruction_set() == used
    kernels = {of["instruction_set"]: of for of in found["kernels"]}
    assert set(kernels) == set(cpu.built_instruction_sets())
    assert [name for name, of in kernels.items() if of["available"]] == cpu.instruction_sets()
    assert [name for name, of in kernels.items() if of["used"]] == [used]
    assert {name: of["multiply_adds_per_second"] for name, of in kernels.items() if name in measured} == measured
    assert all(of["multiply_adds_per_second"] is None for name, of in kernels.items() if name not in measured)
    assert list(measured) == ([name for name in cpu.instruction_sets() if name != "portable"] or ["portable"])
    assert found["threads"] == cores().threads
    assert found["available_bytes"] > 0


@pytest.mark.usefixtures("measured")
def test_the_machine_in_words(call):
    ran = call("inspect", "--machine")
    assert ran.code == 0
    for said in (
        "threads",
        "memory",
        f"{cpu.instruction_set()} ",
        "used; with Q4_0 weights 7 G multiply-adds/s, 5.0 GB/s",
    ):
        assert said in ran.out


@pytest.mark.parametrize(
    ("arguments", "said"), [((), "name a model to inspect"), (("demo", "--machine"), "leave out the model")]
)
def test_a_model_or_the_machine(call, arguments, said):
    ran = call("inspect", *arguments)
    assert ran.code != 0
    assert said in ran.err
