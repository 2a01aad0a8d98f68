"""Acceptance before and after adapting a drafter to a fine-tune of the demo model.

usage:
  python -m benchmarks.adapting tune FOLDER [--minutes M]      # FOLDER/target.gguf, learn.jsonl, held-out.jsonl
  python -m benchmarks.adapting accept FOLDER --drafter PATH   # how often its first choice is the target's own, greedy
  outrider train-drafter FOLDER/target.gguf --from OLD --prompts FOLDER/learn.jsonl --out FOLDER/adapted ...

The fine-tune is of the common kind: every matrix of the layers learns, embedding and head stay, on texts of one kind,
here the sources of Python's standard library, which come with every Python. Prompts are beginnings of functions; those
held out come from modules that neither the fine-tune nor the drafter has seen.
"""

from __future__ import annotations

import argparse
import ast
import json
import random
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own convention)
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter

from outrider import LLM, SamplingParams
from outrider.backends import cpu
from outrider.checkpoints import open_checkpoint

MATRICES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
LENGTH, TOGETHER, RATE = 256, 4, 2e-4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("tune", "accept"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--drafter")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if arguments.what == "tune":
        tune(arguments.folder, arguments.minutes)
    else:
        accept(arguments.folder, arguments.drafter, arguments.threads)


def accept(folder: Path, drafter: str, threads: int | None) -> None:
    """One token is drafted before every pass, and lookup is off, so no controller chooses."""
    llm = LLM(folder / "target.gguf", drafter=drafter, lookup=False, threads=threads)
    drafted = accepted = 0
    for line in (folder / "held-out.jsonl").read_text("utf-8").splitlines():
        stats = llm.generate(json.loads(line)["prompt"], SamplingParams(max_tokens=96, draft=1))[0].stats
        drafted, accepted = drafted + stats.drafted, accepted + stats.accepted
    print(f"{accepted / drafted:.1%} of {drafted}")


def tune(folder: Path, minutes: float) -> None:
    """Fine-tunes, and writes the new weights into a copy of the demo's file."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    learned, held_out = sources()
    write_prompts(folder / "learn.jsonl", learned, 4000)
    write_prompts(folder / "held-out.jsonl", held_out, 48)
    source = open_checkpoint("demo").path
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    model: Any = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
    for name, weight in model.named_parameters():
        weight.requires_grad_(".layers." in name and weight.dim() == 2)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=0.0, fused=True)
    texts = [tokenizer(path.read_text("utf-8"))["input_ids"] for path in learned]
    batches = windows(texts)
    # The softmax is over the tokens that occur and every 16th of the others: a tenth of the work.
    named = torch.unique(torch.cat([torch.tensor([t for text in texts for t in text]), torch.arange(0, 262144, 16)]))
    index = torch.full((262144,), -1).index_copy(0, named, torch.arange(len(named)))
    head = model.get_input_embeddings().weight.detach()[named]
    started, steps, smooth = time.monotonic(), 0, 0.0
    while (spent := (time.monotonic() - started) / (60 * minutes)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (steps + 1) / 10) * (1 - 0.9 * spent)
        tokens = torch.tensor([next(batches) for _ in range(TOGETHER)])
        with torch.autocast("cpu", torch.bfloat16):
            states = model.model(input_ids=tokens).last_hidden_state[:, :-1]
            loss = F.cross_entropy((states @ head.T).flatten(0, 1), index[tokens[:, 1:]].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        steps, smooth = steps + 1, float(loss.detach()) if not steps else 0.95 * smooth + 0.05 * float(loss.detach())
        print(f"step {steps}, {steps * LENGTH * TOGETHER} tokens, loss {smooth:.3f}", flush=True)
    write_gguf(source, dict(model.named_parameters()), folder / "target.gguf")


def sources() -> tuple[list[Path], list[Path]]:
    """Modules to learn from, and those held out: every fifth."""
    modules = sorted(path for path in Path(sysconfig.get_paths()["stdlib"]).glob("*.py") if path.stat().st_size > 4000)
    return [m for i, m in enumerate(modules) if i % 5], [m for i, m in enumerate(modules) if i % 5 == 0]


def windows(texts: list[list[int]]) -> Iterator[list[int]]:
    """Pieces of `LENGTH` tokens in random order, without end."""
    pieces = [text[at : at + LENGTH] for text in texts for at in range(0, len(text) - LENGTH, LENGTH)]
    rng = random.Random(0)
    while True:
        rng.shuffle(pieces)
        yield from pieces


def write_prompts(path: Path, modules: list[Path], most: int) -> None:
    """The first three lines of functions: definition, and how it begins."""
    prompts = []
    for module in modules:
        text = module.read_text("utf-8")
        lines = text.splitlines()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and len(node.body) > 2:
                prompts.append("\n".join(lines[node.lineno - 1 : node.lineno + 2]) + "\n")
    random.Random(0).shuffle(prompts)
    path.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts[:most]), "utf-8")


def write_gguf(source: Path, weights: dict[str, torch.nn.Parameter], path: Path) -> None:
    """The file at `source` with the layers' matrices replaced, in Q8_0."""
    reader, pool = GGUFReader(source), cpu.ThreadPool(2)
    writer = GGUFWriter(path, "gemma3")
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key == "general.architecture":
            continue
        if field.types[0] == GGUFValueType.ARRAY:
            writer.add_array(key, field.contents())
        else:
            writer.add_key_value(key, field.contents(), field.types[0])
    for tensor in reader.tensors:
        parts = tensor.name.split(".")
        if parts[0] == "blk" and parts[2] in MATRICES:
            name = f"model.layers.{parts[1]}.{MATRICES[parts[2]]}.weight"
            values = weights[name].detach().float().contiguous().numpy()
            rows, columns = values.shape
            blocks, _, _ = cpu.quantize("Q8_0", "F32", rows, columns, values.view("u1").reshape(-1), pool)
            writer.add_tensor(tensor.name, blocks.reshape(len(values), -1), raw_dtype=GGMLQuantizationType.Q8_0)
        else:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
