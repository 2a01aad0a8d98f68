"""Damaged files end in a CheckpointError or in a checkpoint, quickly and without memory for what they merely claim."""

from __future__ import annotations

import contextlib
import json
import resource
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from mobile_checkpoints import save_mobile
from tiny_checkpoints import Tiny

from outrider.checkpoints import open_checkpoint
from outrider.checkpoints.gguf.file import GGUFFile
from outrider.errors import CheckpointError

SECONDS = 2.0
ALLOCATED_BYTES = 24 << 20
GROWN_BYTES = 400 << 20

EDGES = [0, 1, 2, 7, 8, 9, 12, 30, 255, 2**16, 2**24, 2**31 - 1, 2**32 - 1, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1]


@pytest.fixture(autouse=True)
def bounded_memory() -> Iterator[None]:
    """The process as a whole (safetensors parses outside Python's allocator) stays small too."""
    before = _peak_bytes()
    yield
    assert _peak_bytes() - before < GROWN_BYTES


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def opens_or_refuses(source: Path) -> bool:
    """True if it opened. Anything but a CheckpointError, too long a time or too much memory fails the test."""
    refusal: CheckpointError | None = None
    tracemalloc.start()
    start = time.monotonic()
    try:
        checkpoint = open_checkpoint(source)
        for tensor in checkpoint.tensors.values():
            assert len(tensor.data) == tensor.row_bytes * int(np.prod(tensor.shape[:-1], dtype=object))
    except CheckpointError as error:
        refusal = error
    finally:
        seconds = time.monotonic() - start
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert seconds < SECONDS
    assert peak < ALLOCATED_BYTES
    assert refusal is None or str(source) in str(refusal)
    return refusal is None


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


@pytest.mark.parametrize("variant", ["gemma3", "gemma4-moe", "assistant-centroids"])
def test_damaged_gguf_headers(variant: str, tiny: Callable[[str], Tiny], tmp_path: Path) -> None:
    source, path = tiny(variant).gguf, tmp_path / "model.gguf"
    raw, header = source.read_bytes(), GGUFFile(source).data_offset
    for seed in range(250):
        path.write_bytes(damaged(raw, header, np.random.default_rng(seed)))
        opens_or_refuses(path)


def test_every_number_in_a_gguf_header(tiny: Callable[[str], Tiny], tmp_path: Path) -> None:
    """Every count, length, type and offset that the reader looks at, each replaced by the edges of its range."""
    source, path = tiny("gemma4-dense").gguf, tmp_path / "model.gguf"
    raw = source.read_bytes()
    numbers = sorted(set(_numbers_of(source)))
    assert len(numbers) > 400
    rng = np.random.default_rng(0)
    opened = 0
    for at, size in [numbers[index] for index in rng.permutation(len(numbers))[:300]]:
        data = bytearray(raw)
        data[at : at + size] = (int(EDGES[rng.integers(len(EDGES))]) % (1 << 8 * size)).to_bytes(size, "little")
        path.write_bytes(data)
        opened += opens_or_refuses(path)
    assert opened < 200


def _numbers_of(source: Path) -> list[tuple[int, int]]:
    """(offset, bytes) of the numbers in a header, as the gguf package finds them; of arrays their first items."""
    reader = gguf.GGUFReader(source)
    numbers: list[tuple[int, int]] = []
    for field in [*reader.fields.values(), *(tensor.field for tensor in reader.tensors)]:
        at = field.offset
        for part in field.parts[:12]:
            if part.dtype != np.uint8 or len(part) == 1:  # not the bytes of a string
                numbers += [(at + index * part.itemsize, part.itemsize) for index in range(len(part))]
            at += part.nbytes
    return numbers


@pytest.mark.parametrize("seed", range(40))
def test_gguf_cut_off_anywhere(seed: int, tiny: Callable[[str], Tiny], tmp_path: Path) -> None:
    source, path = tiny("gemma3").gguf, tmp_path / "model.gguf"
    raw, header = source.read_bytes(), GGUFFile(source).data_offset
    rng = np.random.default_rng(seed)
    path.write_bytes(raw[: int(rng.integers(0, header if seed % 2 else len(raw)))])
    assert not opens_or_refuses(path)


def test_damaged_safetensors_headers(tiny: Callable[[str], Tiny], copy_of: Callable[[Path], Path]) -> None:
    folder = copy_of(tiny("gemma3").folder)
    path = folder / "model.safetensors"
    raw = path.read_bytes()
    header = 8 + int.from_bytes(raw[:8], "little")
    for seed in range(300):
        path.write_bytes(damaged(raw, header, np.random.default_rng(seed)))
        opens_or_refuses(folder)


def test_safetensors_headers_that_parse_but_lie(tiny: Callable[[str], Tiny], copy_of: Callable[[Path], Path]) -> None:
    folder = copy_of(tiny("gemma3").folder)
    path = folder / "model.safetensors"
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header, body = json.loads(raw[8 : 8 + size]), raw[8 + size :]
    names = [name for name in header if name != "__metadata__"]
    rng = np.random.default_rng(0)
    lies: list[tuple[str, Any]] = [
        *(("dtype", dtype) for dtype in ("F16", "BF16", "F64", "F8_E4M3", "BOOL", "I64", "X", 1, None)),
        *(("shape", shape) for shape in ([], [0], [1 << 62, 4], [-1], [1 << 64], ["a"], [64, 1, 1], None)),
        *(("data_offsets", span) for span in ([0, 0], [0, 1 << 62], [8, 4], [1 << 64, 1], [-1, 1], [0], None)),
    ]
    for key, value in lies:
        for name in rng.choice(names, 5, replace=False):
            changed = {**header, name: {**header[name], key: value}}
            text = json.dumps(changed).encode()
            path.write_bytes(len(text).to_bytes(8, "little") + text + body)
            assert not opens_or_refuses(folder)


@pytest.mark.parametrize("packed", [False, True])
def test_damaged_mobile_checkpoints(packed: bool, tmp_path: Path) -> None:
    folder = save_mobile(tmp_path / "model", packed=packed)
    path = folder / "model.safetensors"
    raw = path.read_bytes()
    header = 8 + int.from_bytes(raw[:8], "little")
    for seed in range(200):
        path.write_bytes(damaged(raw, header, np.random.default_rng(seed)))
        opens_or_refuses(folder)


@pytest.mark.parametrize("packed", [False, True])
def test_every_quantization_key_takes_every_kind_of_value(packed: bool, tmp_path: Path) -> None:
    path = save_mobile(tmp_path / "model", packed=packed) / "config.json"
    whole = json.loads(path.read_text())
    for keys in _paths(whole["quantization_config"]):
        for value in [*VALUES, "re:(", ["re:("], ["re:.*"], {"num_bits": 4}]:
            config = json.loads(json.dumps(whole))
            section = config["quantization_config"]
            for key in keys[:-1]:
                section = section[key]
            section[keys[-1]] = value
            path.write_text(json.dumps(config))
            with contextlib.suppress(CheckpointError):
                open_checkpoint(path.parent)


NUMBERS: list[Any] = [-1, 0, 1, 3, 1 << 40, 10**400, 1e308, float("nan"), -1.5]
VALUES: list[Any] = [*NUMBERS, None, "x", "", [], [1], {}, {"a": 1}, True]


@pytest.mark.parametrize("variant", ["gemma3-scaled", "gemma4-e2b", "gemma4-moe", "assistant-centroids"])
def test_every_config_key_takes_every_kind_of_value(
    variant: str, tiny: Callable[[str], Tiny], copy_of: Callable[[Path], Path]
) -> None:
    folder = copy_of(tiny(variant).folder)
    path = folder / "config.json"
    whole = json.loads(path.read_text())
    for keys in _paths(whole):
        for value in VALUES:
            config = json.loads(json.dumps(whole))
            section = config
            for key in keys[:-1]:
                section = section[key]
            section[keys[-1]] = value
            path.write_text(json.dumps(config))
            with contextlib.suppress(CheckpointError):
                open_checkpoint(folder)


def _paths(section: dict[str, Any]) -> Iterator[list[str]]:
    """The keys that lead to each value of a nested object."""
    for key, value in section.items():
        yield [key]
        if isinstance(value, dict):
            yield from ([key, *rest] for rest in _paths(value))
