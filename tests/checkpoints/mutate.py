"""Looks for a damaged checkpoint that ends otherwise than in loading or in a sentence: a crash, a hang, an exception.

Each mutation changes one to three things of one file of a seed (bytes, numbers of a header, values of a JSON file, its
length), loads the result in a process of its own, and lets it answer. A further kind of file is one line in SEEDS.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from block_formats import save_blocks, wide_model
from gguf import GGMLQuantizationType as Type
from mobile_checkpoints import save_mobile
from ollama_store import Store
from quantized_folders import quantize_folder
from quantizers import CASES
from tiny_adapters import adapted, save_adapter, save_gguf_adapter
from tiny_checkpoints import make_assistant, make_model, save_folder, save_gguf
from word_tokenizer import save_tokenizer

from outrider import LLM
from outrider.checkpoints.checkpoint import Format
from outrider.errors import OutriderError

SECONDS = 60.0
"""Of a mutation, on a machine that does other things too."""
GROWN_BYTES = 2 << 30
EDGES = [0, 1, 2, 7, 8, 9, 12, 30, 255, 2**16, 2**24, 2**31 - 1, 2**32 - 1, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1]
NUMBERS: list[Any] = [-1, 0, 1, 3, 1 << 40, 10**400, 1e308, float("nan"), -1.5]
VALUES: list[Any] = [*NUMBERS, None, "x", "", [], [1], {}, {"a": 1}, True]
_TEMPLATE = "{{ bos_token }}{% for m in messages %}{{ m['content'] }}{% endfor %}"


def damaged(raw: bytes, header_bytes: int, rng: np.random.Generator) -> bytes:
    """`raw` with one to three injuries to its header, or cut off anywhere."""
    data = bytearray(raw)
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(0, max(1, min(header_bytes, len(data)) - 8)))
        edge = int(EDGES[rng.integers(len(EDGES))])
        some = int(rng.integers(1, 40))
        match rng.integers(6):
            case 0:
                data[at] = int(rng.integers(256))
            case 1:
                data[at : at + 8] = edge.to_bytes(8, "little")
            case 2:
                data[at : at + 4] = (edge & 0xFFFFFFFF).to_bytes(4, "little")
            case 3:
                del data[int(rng.integers(0, len(data))) :]
            case 4:
                del data[at : at + some]
            case 5:
                data[at:at] = data[at : at + some]
        if len(data) < 16:
            break
    return bytes(data)


def numbers_of(source: Path) -> list[tuple[int, int]]:
    """(offset, bytes) of the numbers in a GGUF header, as the gguf package finds them; of arrays their first items."""
    reader = gguf.GGUFReader(source)
    numbers: list[tuple[int, int]] = []
    for of_file in [*reader.fields.values(), *(tensor.field for tensor in reader.tensors)]:
        at = of_file.offset
        for part in of_file.parts[:12]:
            if part.dtype != np.uint8 or len(part) == 1:  # not the bytes of a string
                numbers += [(at + index * part.itemsize, part.itemsize) for index in range(len(part))]
            at += part.nbytes
    return numbers


def paths_in(section: dict[str, Any]) -> Iterator[list[str]]:
    """The keys that lead to each value of a nested object."""
    for key, value in section.items():
        yield [key]
        if isinstance(value, dict):
            yield from ([key, *rest] for rest in paths_in(value))


@dataclass(frozen=True)
class Seed:
    """A checkpoint to damage. `make` writes it into an empty folder and returns what `LLM` is to open.

    `options` are those of `LLM`; the adapters of `lora` lie in that folder.
    """

    name: str
    make: Callable[[Path], Path | str]
    options: dict[str, Any] = field(default_factory=dict)


def _gguf(variant: str, kind: Type = Type.F32, split: int = 0) -> Callable[[Path], Path]:
    def make(root: Path) -> Path:
        def edit(writer: gguf.GGUFWriter) -> None:
            writer.add_int32("general.sampling.top_k", 20)
            writer.add_float32("general.sampling.temp", 0.8)
            writer.add_chat_template(_TEMPLATE)

        return save_gguf(make_model(variant), root / "model.gguf", kind, edit=edit, split=split)

    def make_parts(root: Path) -> Path:
        make(root)
        return root / "model-00001-of-00003.gguf"

    return make_parts if split else make


def _folder(variant: str) -> Callable[[Path], Path]:
    def make(root: Path) -> Path:
        save_folder(make_model(variant), root)
        save_tokenizer(root)
        generation = {"do_sample": True, "top_p": 0.9, "stop_strings": ["END"], "eos_token_id": [1, 106]}
        (root / "generation_config.json").write_text(json.dumps(generation))
        settings = {"bos_token": "<bos>", "eos_token": {"content": "<eos>"}, "chat_template": _TEMPLATE}
        (root / "tokenizer_config.json").write_text(json.dumps(settings))
        return root

    return make


def _quantized(scheme: str) -> Callable[[Path], Path]:
    def make(root: Path) -> Path:
        folder = _folder("gemma3")(root)
        quantize_folder(folder, CASES[scheme])
        return folder

    return make


def _blocks(kind: Format) -> Callable[[Path], Path]:
    return lambda root: save_blocks(wide_model("gemma4-e2b"), root / "model.gguf", kind, factors=kind == "NVFP4")


def _adapted(root: Path) -> Path:
    model = make_model("gemma3")
    save_adapter(adapted(model), root / "adapter")
    save_gguf_adapter(adapted(model), root / "adapter.gguf")
    return save_gguf(model, root / "model.gguf")


def _mobile(root: Path, *, packed: bool = False) -> Path:
    save_mobile(root, packed=packed)
    save_tokenizer(root)
    return root


def _shards(root: Path) -> Path:
    folder = _folder("gemma4-moe")(root)
    save_folder(make_model("gemma4-moe"), root, max_shard_size="200KB")
    (root / "model.safetensors").unlink()
    return folder


def _with_drafter(root: Path) -> Path:
    model = make_model("gemma4-e2b")
    save_gguf(make_assistant(model.config.get_text_config(), ordered=True), root / "mtp-x.gguf")
    return save_gguf(model, root / "model.gguf")


def _ollama(root: Path) -> str:
    files = root.parent / "files"
    files.mkdir(exist_ok=True)
    params = {"top_k": 20, "stop": ["END"], "num_ctx": 64, "num_predict": 5}
    Store(root / "store").add(
        "registry.ollama.ai/library/gemma3/latest", {"model": _gguf("gemma3")(files), "params": params}
    )
    return "ollama:gemma3"


SCHEMES = ("ct-pack-4-group", "ct-nvfp4", "awq", "gptq-4-act-order", "fp8-128")
SEEDS = [
    Seed("gemma3.gguf", _gguf("gemma3")),
    Seed("gemma4-e2b-q8_0.gguf", _gguf("gemma4-e2b", Type.Q8_0)),
    Seed("gemma4-moe-q4_0.gguf", _gguf("gemma4-moe", Type.Q4_0)),
    Seed("gemma4-parts.gguf", _gguf("gemma4-dense", split=40)),
    Seed("gemma3", _folder("gemma3")),
    Seed("mobile", _mobile),
    Seed("mobile-ct", partial(_mobile, packed=True)),
    Seed("gemma4-e2b", _folder("gemma4-e2b")),
    Seed("gemma4-shards", _shards),
    *(
        Seed(scheme, _quantized(scheme))
        for scheme in ("ct-pack-4-group", "ct-nvfp4", "awq", "gptq-4-act-order", "fp8-128")
    ),
    Seed("iq4_xs.gguf", _blocks("IQ4_XS")),
    Seed("nvfp4.gguf", _blocks("NVFP4")),
    Seed("adapters", _adapted, {"lora": {"a": "adapter", "b": "adapter.gguf"}}),
    Seed("gemma3-quantized", _folder("gemma3-scaled"), {"quantize": "q4_0"}),
    Seed("gemma4-drafter", _with_drafter),
    Seed("ollama", _ollama),
]


def mutated(path: Path, raw: bytes, rng: np.random.Generator) -> bytes | None:
    """A file's content after a mutation of its kind; None for a file that is gone."""
    if rng.random() < 0.02:
        return None
    if rng.random() < 0.2:
        return damaged(raw, len(raw), rng)
    if raw[:4] == b"GGUF":
        return _gguf_mutated(path, raw, rng)
    if path.suffix == ".safetensors":
        size = min(8 + int.from_bytes(raw[:8], "little"), len(raw))
        if rng.random() < 0.5:
            return damaged(raw, size, rng)
        header = _json_mutated(raw[8:size], rng)
        return len(header).to_bytes(8, "little") + header + raw[size:]
    return _json_mutated(raw, rng) if raw[:1] == b"{" else damaged(raw, len(raw), rng)


def _gguf_mutated(path: Path, raw: bytes, rng: np.random.Generator) -> bytes:
    numbers = numbers_of(path)
    header = max(at + size for at, size in numbers)
    if rng.random() < 0.4:
        return damaged(raw, header, rng)
    data = bytearray(raw)
    for _ in range(rng.integers(1, 3)):
        at, size = numbers[rng.integers(len(numbers))]
        number = int.from_bytes(data[at : at + size], "little")
        near = number + int(rng.integers(-2, 3))
        changed = near if rng.random() < 0.4 else int(EDGES[rng.integers(len(EDGES))])
        data[at : at + size] = (changed % (1 << 8 * size)).to_bytes(size, "little")
    return bytes(data)


def _json_mutated(raw: bytes, rng: np.random.Generator) -> bytes:
    whole = json.loads(raw)
    for _ in range(rng.integers(1, 4)):
        keys = list(paths_in(whole))
        if not keys:
            break
        *parents, key = keys[rng.integers(len(keys))]
        section = whole
        for parent in parents:
            section = section[parent]
        match rng.integers(4):
            case 0:
                section.pop(key)
            case 1 if isinstance(section[key], int | float):
                section[key] += int(rng.integers(-2, 3))
            case 2 if isinstance(section[key], list) and section[key]:
                section[key][rng.integers(len(section[key]))] = deepcopy(VALUES[rng.integers(len(VALUES))])
            case _:
                section[key] = deepcopy(VALUES[rng.integers(len(VALUES))])
    return json.dumps(whole).encode()


class Mutations:
    """Makes the seeds once, and tries mutations of them.

    Args:
        root: an empty folder.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._made: dict[str, tuple[Path, Path | str]] = {}

    def attempt(self, number: int) -> tuple[str, str]:
        """(what was mutated, how it ended): "loaded", "refused: " and the sentence, or a problem."""
        rng = np.random.default_rng(number)
        seed = SEEDS[number % len(SEEDS)]
        work, source = self._copy(seed)
        files = sorted(path for path in work.rglob("*") if path.is_file())
        path = files[rng.integers(len(files))]
        changed = mutated(path, path.read_bytes(), rng)
        path.unlink()
        if changed is not None:
            path.write_bytes(changed)
        what = f"--seed {number} --mutations 1 ({seed.name}, {path.name})"
        return what, in_a_process(lambda: _load(source, work, seed.options, self._root))

    def unchanged(self, seed: Seed) -> str:
        """How a seed ends without a mutation."""
        work, source = self._copy(seed)
        return in_a_process(lambda: _load(source, work, seed.options, self._root))

    def _copy(self, seed: Seed) -> tuple[Path, Path | str]:
        """A copy of a seed's folder, and what is to be opened."""
        original, source = self._seed(seed)
        work = self._root / "work"
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(original, work)
        return work, source if isinstance(source, str) else work / source.relative_to(original)

    def _seed(self, seed: Seed) -> tuple[Path, Path | str]:
        if seed.name not in self._made:
            folder = self._root / "seeds" / seed.name
            folder.mkdir(parents=True)
            self._made[seed.name] = folder, seed.make(folder)
        return self._made[seed.name]


def _load(source: Path | str, work: Path, options: dict[str, Any], root: Path) -> str:
    """Loads a checkpoint and lets it answer; what came of it."""
    logging.disable()
    warnings.simplefilter("ignore")
    os.environ |= {"OLLAMA_MODELS": str(work / "store"), "XDG_CACHE_HOME": str(root / "cache")}
    limit = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 + GROWN_BYTES + _mapped_bytes()
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    if lora := options.get("lora"):
        options = options | {"lora": {name: work / path for name, path in lora.items()}}
    try:
        with LLM(source, threads=1, context=64, progress=False, **options) as llm:
            params = replace(llm.get_default_sampling_params(), max_tokens=3, min_tokens=0)
            llm.generate([[2, 300, 301], "ab"], params)
            if llm.parts.chat is not None:
                llm.chat([{"role": "user", "content": "ab"}], params)
    except OutriderError as problem:
        return f"refused: {problem}"
    return "loaded"


def _mapped_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def in_a_process(work: Callable[[], str]) -> str:
    """What a function returns in a forked process, or how that process ended: by an exception, a signal, not at all."""
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reads)
            result = work()
        except BaseException:
            result = "RAISED " + traceback.format_exc()
        with os.fdopen(writes, "wb") as pipe:
            pipe.write(result.encode(errors="replace"))
        os._exit(0)
    os.close(writes)
    with os.fdopen(reads, "rb") as pipe:
        if not select.select([pipe], [], [], SECONDS)[0]:
            os.kill(child, signal.SIGKILL)
        result = pipe.read().decode()
    status = os.waitpid(child, 0)[1]
    if result:
        return result
    return f"HANGS after {SECONDS:g} s" if status == signal.SIGKILL else f"CRASHED with status {status}"


def is_problem(ended: str) -> bool:
    """Whether a mutation ended in neither loading nor a sentence."""
    sentence = ended.startswith("refused: ") and len(ended) > 30 and "\n" not in ended.strip()
    return not (ended == "loaded" or sentence)


def run(mutations: int, seed: int) -> int:
    """So many mutations from a seed on; the exit status."""
    loaded = problems = 0
    started = said = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        tried = Mutations(Path(folder))
        for number in range(seed, seed + mutations):
            what, ended = tried.attempt(number)
            loaded += ended == "loaded"
            if is_problem(ended):
                problems += 1
                print(f"{what}: {ended}", file=sys.stderr, flush=True)
            if time.monotonic() - said > 10:
                said = time.monotonic()
                print(f"{number + 1 - seed} mutations, {loaded} loaded, {said - started:.0f} s", flush=True)
    print(
        f"{mutations} mutations from seed {seed}: {loaded} loaded, {problems} ended in neither loading nor a sentence"
    )
    return min(problems, 1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutations", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    sys.exit(run(arguments.mutations, arguments.seed))
