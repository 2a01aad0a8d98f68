"""`outrider inspect`: what is in a checkpoint, what it costs to run, which drafter fits; or what this machine has."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from outrider.console import MODEL_HELP, JsonOption, print_facts, print_result
from outrider.errors import UsageError
from outrider.machine import size

if TYPE_CHECKING:
    from outrider.backends.cpu import KvFormat
    from outrider.checkpoints import Checkpoint, Layer, ModelConfig
    from outrider.program import Program


_CONTEXTS = (8192, 32768, 131072)
_KV_FORMATS: tuple[KvFormat, ...] = ("int8", "float16")
"""The first is the default."""


def inspect(
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help=MODEL_HELP, show_default=False)] = None,
    as_json: JsonOption = False,
    program: Annotated[bool, typer.Option("--program", help="Print the operations of a target pass.")] = False,
    machine: Annotated[
        bool, typer.Option("--machine", help="Show this machine instead: its instruction sets, and what each reaches.")
    ] = False,
) -> None:
    """Show what is in a checkpoint, and what it costs.

    Also which drafter fits. Its weights are not loaded.
    """
    if machine:
        from outrider.cli.inspect_machine import describe_machine, show_machine

        if model is not None or program:
            raise UsageError("--machine describes this machine, not a model: leave out the model and --program")
        print_result(describe_machine(), show_machine, as_json)
        return
    if model is None:
        raise UsageError("name a model to inspect, or give --machine for this machine")
    from outrider.checkpoints import ModelConfig, open_checkpoint
    from outrider.drafters.pairing import find_drafter

    checkpoint = open_checkpoint(model)
    if program:
        print(program_of(checkpoint))
        return
    found = describe(checkpoint)
    if isinstance(checkpoint.config, ModelConfig):
        drafter = find_drafter(model, checkpoint.path, checkpoint.config)
        found |= {"drafter_path": str(drafter.path) if drafter.path else None, "drafter_why": drafter.why}
    print_result(found, show, as_json)


def program_of(checkpoint: Checkpoint) -> Program:
    """The recorded pass of a model. Raises UsageError for a drafter."""
    from outrider.checkpoints import ModelConfig
    from outrider.models.gemma import record_gemma

    if not isinstance(checkpoint.config, ModelConfig):
        raise UsageError(f"{checkpoint.path} is a drafter, whose pass depends on its target: name the target instead")
    return record_gemma(checkpoint.config, checkpoint.tensors)


def describe(checkpoint: Checkpoint) -> dict[str, Any]:
    """The facts as plain data; sizes in bytes."""
    from outrider.cache import bytes_per_position
    from outrider.checkpoints import AssistantConfig
    from outrider.checkpoints.chat_template import stored_template
    from outrider.checkpoints.traffic import weight_traffic
    from outrider.models.gemma import kv_layers

    drafter = checkpoint.config if isinstance(checkpoint.config, AssistantConfig) else None
    config = checkpoint.config.text if isinstance(checkpoint.config, AssistantConfig) else checkpoint.config
    formats: dict[str, dict[str, int]] = {}
    for tensor in checkpoint.tensors.values():
        of_format = formats.setdefault(tensor.format, {"tensors": 0, "bytes": 0})
        of_format["tensors"] += 1
        of_format["bytes"] += tensor.nbytes
    traffic = weight_traffic(checkpoint.tensors, checkpoint.config)
    weights = sum(entry["bytes"] for entry in formats.values())
    memory = {} if drafter else _memory(checkpoint, config)
    return {
        "path": str(checkpoint.path),
        "architecture": config.architecture,
        "drafter": drafter is not None,
        "target_hidden_size": drafter and drafter.backbone_hidden_size,
        **{
            name: getattr(config, name)
            for name in ("hidden_size", "vocab_size", "context_length", "heads", "ple_width")
        },
        "layers": _layer_groups(config.layers),
        "layers_sharing_kv": sum(1 for i, layer in enumerate(config.layers) if layer.kv_source not in (i, -1)),
        "experts": config.experts and {name: getattr(config.experts, name) for name in ("count", "top_k", "width")},
        "formats": dict(sorted(formats.items(), key=lambda item: -item[1]["bytes"])),
        "weight_bytes": weights,
        "bytes_read_per_token": traffic.per_token,
        "gathered_table_bytes": traffic.gathered,
        "kv_bytes_per_position": bytes_per_position(kv_layers(config), _KV_FORMATS[0]),
        **memory,
        "left_out_tensors": checkpoint.left_out,
        "sampling": dict(checkpoint.sampling),
        "tokenizer": checkpoint.tokenizer is not None,
        "chat_template": checkpoint.tokenizer is not None and stored_template(checkpoint.tokenizer) is not None,
    }


def _memory(checkpoint: Checkpoint, config: ModelConfig) -> dict[str, Any]:
    """What it takes at some contexts, and how long a request may be here, as stored and quantized on load."""
    from outrider.fit import Footprint, Setting
    from outrider.machine import memory

    footprint, here = Footprint(config, checkpoint.tensors, {}), memory()
    contexts = [length for length in _CONTEXTS if length < config.context_length] + [config.context_length]
    needs = {str(length): footprint.needs(Setting(length)) for length in contexts}
    fits = {
        to or "as stored": {
            "weight_bytes": footprint.needs(Setting(0, quantize=to)).weights,
            **{kv: footprint.largest_context(here.available, kv, to) for kv in _KV_FORMATS},
        }
        for to in (None, *footprint.quantizations())
    }
    return {
        "context_bytes": {length: of.cache for length, of in needs.items()},
        "buffer_bytes": needs[str(contexts[0])].buffers,
        "memory_bytes": {length: of.total for length, of in needs.items()},
        "available_bytes": here.available,
        "in_container": here.contained,
        "longest_context": fits,
    }


def _layer_groups(layers: tuple[Layer, ...]) -> list[dict[str, Any]]:
    """Groups of equal layers with their number, in the order of their first layer."""
    groups = Counter((layer.kind, layer.head_dim, layer.kv_heads, layer.mlp_width, layer.window) for layer in layers)
    names = ("kind", "head_dim", "kv_heads", "mlp_width", "window")
    return [{"count": count, **dict(zip(names, group, strict=True))} for group, count in groups.items()]


def show(found: dict[str, Any]) -> None:
    """The facts for a person."""
    print_facts(_lines(found))


def _lines(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "file", found["path"]
    yield "architecture", f"{found['architecture']} drafter" if found["drafter"] else found["architecture"]
    if found["drafter"]:
        yield "for a target of", f"hidden size {found['target_hidden_size']}"
    for group in found["layers"]:
        window = f", window {group['window']}" if group["window"] else ""
        heads = f"{found['heads']} heads of {group['head_dim']}, {group['kv_heads']} for keys and values"
        plural = "s" if group["count"] > 1 else ""
        yield f"{group['count']} {group['kind']} layer{plural}", f"{heads}, MLP {group['mlp_width']}{window}"
    if found["layers_sharing_kv"]:
        yield "sharing", f"{found['layers_sharing_kv']} layers read the keys and values of a lower one"
    if experts := found["experts"]:
        yield "experts", f"{experts['top_k']} of {experts['count']} per token, width {experts['width']}"
    yield "hidden size", f"{found['hidden_size']}"
    yield "vocabulary", f"{found['vocab_size']} tokens"
    yield "context", f"{found['context_length']} tokens"
    template = ", with a chat template" if found["chat_template"] else ""
    yield "tokenizer", f"present{template}" if found["tokenizer"] else "none"
    if sampling := found["sampling"]:
        yield (
            "sampling",
            ", ".join(f"{name} {json.dumps(value, ensure_ascii=False)}" for name, value in sampling.items()),
        )
    if found["left_out_tensors"]:
        yield "left out", f"{found['left_out_tensors']} tensors of the vision and audio encoders"
    for name, entry in found["formats"].items():
        yield f"{name} tensors", f"{entry['tensors']}, {size(entry['bytes'])}"
    yield "all weights", size(found["weight_bytes"])
    if found["gathered_table_bytes"]:
        yield "table", f"{size(found['gathered_table_bytes'])} of them, read a row at a time"
    yield "read per token", size(found["bytes_read_per_token"])
    if not found["drafter"]:
        kv = found["kv_bytes_per_position"]
        yield "keys and values", f"{size(kv['full'])} per position, and {size(kv['sliding'])} within the window"
        for length, whole in found["memory_bytes"].items():
            of_these = size(found["context_bytes"][length])
            yield f"at {int(length):,} tokens", f"{size(whole)} of memory, {of_these} of it keys and values"
        container = " of the container's limit" if found["in_container"] else ""
        yield "available here", f"{size(found['available_bytes'])}{container}"
        for how, fits in found["longest_context"].items():
            packed = f"weights of {size(fits['weight_bytes'])}"
            yield (
                how if how == "as stored" else f"--quantize {how}",
                f"{packed}: {_longest(fits, found['context_length'])}",
            )
    if "drafter_why" in found:
        yield "drafter", found["drafter_why"]


def _longest(fits: dict[str, Any], limit: int) -> str:
    """Which contexts fit, for a person."""
    longest = fits[_KV_FORMATS[0]]
    if longest == limit:
        return f"all {limit:,} tokens fit"
    return f"{longest:,} tokens fit" if longest else "does not fit"
