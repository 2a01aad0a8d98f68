"""`outrider inspect`: what is in a checkpoint, what it costs to run, which drafter fits. Nothing is computed."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from outrider.console import ModelArgument
from outrider.errors import UsageError

if TYPE_CHECKING:
    from outrider.checkpoints import Checkpoint, Layer
    from outrider.program import Program


_CONTEXTS = (8192, 32768, 131072)


def inspect(
    model: ModelArgument,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    program: Annotated[bool, typer.Option("--program", help="Print the operations of a target pass.")] = False,
) -> None:
    """Show what is in a checkpoint, what it costs and which drafter fits, without loading its weights."""
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
    if as_json:
        print(json.dumps(found))
    else:
        show(found)


def program_of(checkpoint: Checkpoint) -> Program:
    """The recorded pass of a model. Raises UsageError for a drafter."""
    from outrider.checkpoints import ModelConfig
    from outrider.models.gemma import record_gemma

    if not isinstance(checkpoint.config, ModelConfig):
        raise UsageError(f"{checkpoint.path} is a drafter, whose pass depends on its target: name the target instead")
    return record_gemma(checkpoint.config, checkpoint.tensors)


def describe(checkpoint: Checkpoint) -> dict[str, Any]:
    """The facts as plain data; sizes in bytes."""
    from outrider.cache import cache_bytes
    from outrider.checkpoints import AssistantConfig
    from outrider.checkpoints.chat_template import stored_template
    from outrider.checkpoints.traffic import kv_bytes_per_position, weight_traffic
    from outrider.loading import PREFILL_CHUNK
    from outrider.models.gemma import kv_layers

    drafter = checkpoint.config if isinstance(checkpoint.config, AssistantConfig) else None
    config = checkpoint.config.text if isinstance(checkpoint.config, AssistantConfig) else checkpoint.config
    formats: dict[str, dict[str, int]] = {}
    for tensor in checkpoint.tensors.values():
        of_format = formats.setdefault(tensor.format, {"tensors": 0, "bytes": 0})
        of_format["tensors"] += 1
        of_format["bytes"] += tensor.nbytes
    traffic = weight_traffic(checkpoint.tensors, checkpoint.config)
    kv = kv_bytes_per_position(config)
    weights = sum(entry["bytes"] for entry in formats.values())
    contexts = [length for length in _CONTEXTS if length < config.context_length] + [config.context_length]
    context_bytes = {length: cache_bytes(kv_layers(config), length, PREFILL_CHUNK, "float16") for length in contexts}
    return {
        "path": str(checkpoint.path),
        "architecture": config.architecture,
        "drafter": drafter is not None,
        "target_hidden_size": drafter.backbone_hidden_size if drafter else None,
        "hidden_size": config.hidden_size,
        "vocab_size": config.vocab_size,
        "context_length": config.context_length,
        "heads": config.heads,
        "layers": _layer_groups(config.layers),
        "layers_sharing_kv": sum(1 for i, layer in enumerate(config.layers) if layer.kv_source not in (i, -1)),
        "ple_width": config.ple_width,
        "experts": None
        if config.experts is None
        else {"count": config.experts.count, "top_k": config.experts.top_k, "width": config.experts.width},
        "formats": dict(sorted(formats.items(), key=lambda item: -item[1]["bytes"])),
        "weight_bytes": weights,
        "bytes_read_per_token": traffic.per_token,
        "gathered_table_bytes": traffic.gathered,
        "kv_bytes_per_position": dict(kv),
        "context_bytes": None if drafter else {str(length): size for length, size in context_bytes.items()},
        "memory_bytes": None
        if drafter
        else {str(length): size + weights - traffic.gathered for length, size in context_bytes.items()},
        "left_out_tensors": checkpoint.left_out,
        "sampling": dict(checkpoint.sampling),
        "tokenizer": checkpoint.tokenizer is not None,
        "chat_template": checkpoint.tokenizer is not None and stored_template(checkpoint.tokenizer) is not None,
    }


def _layer_groups(layers: tuple[Layer, ...]) -> list[dict[str, Any]]:
    """Layers that look alike, counted, in the order in which their kind first occurs."""
    alike = Counter((layer.kind, layer.head_dim, layer.kv_heads, layer.mlp_width, layer.window) for layer in layers)
    names = ("kind", "head_dim", "kv_heads", "mlp_width", "window")
    return [{"count": count, **dict(zip(names, group, strict=True))} for group, count in alike.items()]


def show(found: dict[str, Any]) -> None:
    """The facts for a person."""
    from rich.console import Console
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for name, value in _lines(found):
        table.add_row(name, value)
    Console(highlight=False).print(table)


def _lines(found: dict[str, Any]) -> list[tuple[str, str]]:
    kind = f"{found['architecture']} drafter" if found["drafter"] else found["architecture"]
    lines = [("file", found["path"]), ("architecture", kind)]
    if found["drafter"]:
        lines.append(("for a target of", f"hidden size {found['target_hidden_size']}"))
    for group in found["layers"]:
        window = f", window {group['window']}" if group["window"] else ""
        heads = f"{found['heads']} heads of {group['head_dim']}, {group['kv_heads']} for keys and values"
        lines.append(
            (
                f"{group['count']} {group['kind']} layer{'s' if group['count'] > 1 else ''}",
                f"{heads}, MLP {group['mlp_width']}{window}",
            )
        )
    if found["layers_sharing_kv"]:
        lines.append(("sharing", f"{found['layers_sharing_kv']} layers read the keys and values of a lower one"))
    if found["experts"]:
        experts = found["experts"]
        lines.append(("experts", f"{experts['top_k']} of {experts['count']} per token, width {experts['width']}"))
    lines.append(("hidden size", f"{found['hidden_size']}"))
    lines.append(("vocabulary", f"{found['vocab_size']} tokens"))
    lines.append(("context", f"{found['context_length']} tokens"))
    tokenizer = "none" if not found["tokenizer"] else "present"
    lines.append(("tokenizer", tokenizer + (", with a chat template" if found["chat_template"] else "")))
    if found["sampling"]:
        lines.append(("sampling", ", ".join(f"{name} {value:g}" for name, value in found["sampling"].items())))
    if found["left_out_tensors"]:
        lines.append(("left out", f"{found['left_out_tensors']} tensors of the vision and audio encoders"))
    for name, entry in found["formats"].items():
        lines.append((f"{name} tensors", f"{entry['tensors']}, {size(entry['bytes'])}"))
    lines.append(("all weights", size(found["weight_bytes"])))
    if found["gathered_table_bytes"]:
        lines.append(("table", f"{size(found['gathered_table_bytes'])} of them, read a row at a time"))
    lines.append(("read per token", size(found["bytes_read_per_token"])))
    if not found["drafter"]:
        kv = found["kv_bytes_per_position"]
        lines.append(
            ("keys and values", f"{size(kv['full'])} per position, and {size(kv['sliding'])} within the window")
        )
        for length, whole in found["memory_bytes"].items():
            of_these = size(found["context_bytes"][length])
            lines.append((f"at {int(length):,} tokens", f"{size(whole)} of memory, {of_these} of it keys and values"))
        if found.get("drafter_why"):
            lines.append(("drafter", found["drafter_why"]))
    return lines


def size(count: int) -> str:
    """Bytes for a person, in powers of 1000."""
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.2f} GB"
