"""A GGUF file: key-values, tensor table, and the tensors' bytes in a read-only mapping.

Layout, little-endian (ggml's docs/gguf.md, versions 2 and 3):

    header       "GGUF", u32 version, u64 number of tensors, u64 number of key-values
    key-value    string key, u32 type, value (a number, a string, or an array: u32 item type, u64 count, items)
    tensor       string name, u32 dimensions, u64 each (fastest first), u32 type, u64 offset into the data section
    data         begins at the next multiple of `general.alignment`, as does every tensor in it
    string       u64 bytes, UTF-8

Nothing in the header is trusted: every count, length and offset is checked against the file's size and against the
limits below before it is used, so a damaged file is refused without memory for what it claims to hold.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np

from outrider.arrays import Bytes
from outrider.checkpoints.checkpoint import BLOCKS, SCALED_FORMATS, WEIGHT_FORMATS, Tensor, bytes_as
from outrider.checkpoints.foreign import beginning
from outrider.checkpoints.gguf.names import neutral_name
from outrider.errors import CheckpointError, memory_ran_out

_DAMAGED = "The file is damaged or incomplete: download or convert it again"
_VERSIONS = (2, 3)

# Far above what any model has (Gemma 4 31B: 833 tensors, some 60 keys, 262,144 tokens, 514,906 merges), and low enough
# that a corrupt count is refused at once instead of after a long walk.
_MAX_KEYS = 1 << 16
_MAX_TENSORS = 1 << 16
_MAX_ITEMS = 1 << 24
_MAX_NAME_BYTES = 1 << 16
_MAX_STRING_BYTES = 1 << 24
_MAX_DIMENSIONS = 4
_MAX_ALIGNMENT = 1 << 20
_DEFAULT_ALIGNMENT = 32

_HEADER_BYTES = 4 + 4 + 8 + 8
_FEWEST_BYTES = 8  # of a key, a tensor or a string: the length of its name

# Value types by number; those of numbers with their `struct` code, which numpy shares.
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9

TENSOR_TYPES = (  # noqa: SIM905 (a list would take 41 lines)
    "F32 F16 Q4_0 Q4_1 - - Q5_0 Q5_1 Q8_0 Q8_1 Q2_K Q3_K Q4_K Q5_K Q6_K Q8_K IQ2_XXS IQ2_XS IQ3_XXS IQ1_S IQ4_NL "
    "IQ3_S IQ2_S IQ4_XS I8 I16 I32 I64 F64 IQ1_M BF16 - - - TQ1_0 TQ2_0 - - - MXFP4 NVFP4 Q1_0"
).split()
"""ggml's tensor types by number ("-": withdrawn). The others than `_READ` are only named in errors."""

_READ = tuple(format for format in BLOCKS if format not in SCALED_FORMATS)

_INSTEAD = {
    "IQ2_XXS": "Q2_K",
    "IQ2_XS": "Q2_K",
    "IQ2_S": "Q2_K",
    "IQ1_S": "Q2_K",
    "IQ1_M": "Q2_K",
    "TQ1_0": "TQ2_0",
    "Q1_0": "TQ2_0",
    "Q8_1": "Q8_0",
    "Q8_K": "Q8_0",
    "F64": "F32",
}
"""The nearest type that is read, for types that are not."""


def is_gguf(path: Path) -> bool:
    """Whether a file begins as a GGUF file does. Raises OSError if it cannot be read."""
    with path.open("rb") as file:
        return file.read(4) == b"GGUF"


class GGUFFile:
    """An opened GGUF file.

    Attributes:
        path: of the file.
        values: metadata key -> int, float, bool, str, list[str] or a one-dimensional numeric array.
        table: tensor name in the file -> Tensor, in file order.
        skipped: names of tensors of types that are not read, none of which the text model uses.
        data_offset: byte at which the data section begins.

    Raises:
        CheckpointError: the file cannot be read, is not GGUF, or its header is inconsistent.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        header = _Header(self, self._mapped())
        tensors, keys = header.number("Q"), header.number("Q")
        self.values = header.key_values(keys)
        alignment = self.values.get("general.alignment", _DEFAULT_ALIGNMENT)
        self.table, self.skipped, self.data_offset = header.tensors(tensors, alignment)

    def fault(self, problem: str, remedy: str = _DAMAGED) -> CheckpointError:
        """A CheckpointError about this file."""
        return CheckpointError(problem, path=self.path, remedy=remedy)

    def _mapped(self) -> Bytes:
        """The file's bytes, unless its first ones already rule it out."""
        try:
            with self.path.open("rb") as file:
                start = file.read(_HEADER_BYTES)
                mapping = np.memmap(file, np.uint8, "r").view(np.ndarray) if len(start) == _HEADER_BYTES else None
        except OSError as error:
            if memory_ran_out(error):
                raise
            raise self.fault(f"cannot be read ({error.strerror or error})", "Check the path and permissions") from error
        if start[:4] != b"GGUF":
            if (known := beginning(self.path)) is not None:
                raise self.fault(*known)
            problem = f"is not a GGUF file (it begins with {start[:4]!r}, not b'GGUF')"
            raise self.fault(problem, "Pass a .gguf model file")
        if mapping is None:
            raise self.fault(f"ends after {len(start)} bytes, inside the header")
        version = int.from_bytes(start[4:8], "little")
        if not version & 0xFFFF:
            raise self.fault("is stored in big-endian byte order", "Convert it as little-endian")
        if version not in _VERSIONS:
            raise self.fault(f"is GGUF version {version}, not 2 or 3", "Convert it again with a current converter")
        return mapping


def _type(kind: int) -> str:
    """The name of a tensor type by its number."""
    return TENSOR_TYPES[kind] if kind < len(TENSOR_TYPES) else "-"


class _Header:
    """Reads a header from front to back; `at` is the byte of the next read. No read passes the end of the file."""

    def __init__(self, file: GGUFFile, data: Bytes) -> None:
        self._fault, self._data, self._size = file.fault, data, len(data)
        self.at = 8  # behind the magic and the version

    def key_values(self, count: int) -> dict[str, Any]:
        self._check_count("metadata keys", count, _MAX_KEYS)
        values: dict[str, Any] = {}
        for _ in range(count):
            key = self._strings(1, _MAX_NAME_BYTES)[0]
            if key in values:
                raise self._fault(f"holds the metadata key {key} twice")
            values[key] = self._value(key, self.number("I"))
        return values

    def tensors(self, count: int, alignment: Any) -> tuple[dict[str, Tensor], list[str], int]:
        """The tensor table, every entry inside the file and none overlapping another; the names of tensors that the
        text model does not use, in types that are not read; and where the data begins."""
        self._check_count("tensors", count, _MAX_TENSORS)
        if type(alignment) is not int or alignment % 8 or not 8 <= alignment <= _MAX_ALIGNMENT:
            raise self._fault(f"sets general.alignment to {alignment!r}, not a multiple of 8 up to {_MAX_ALIGNMENT}")
        entries = [self._entry() for _ in range(count)]
        skipped = [name for name, _, kind, _ in entries if _type(kind) not in _READ and neutral_name(name) is None]
        entries = [entry for entry in entries if entry[0] not in skipped]
        start = -(-self.at // alignment) * alignment
        table: dict[str, Tensor] = {}
        end, previous = 0, ""
        for name, shape, kind, offset in sorted(entries, key=lambda entry: entry[-1]):
            if name in table:
                raise self._fault(f"holds the tensor {name} twice")
            if offset % alignment:
                raise self._fault(f"stores tensor {name} at byte {start + offset}, off its alignment of {alignment}")
            if offset < end:
                raise self._fault(f"stores the tensors {previous} and {name} over each other")
            table[name] = self._tensor(name, shape, kind, start + offset)
            end, previous = offset + table[name].nbytes, name
        return {name: table[name] for name, *_ in entries}, skipped, start

    def number(self, code: str) -> Any:
        """The next number, by its `struct` code."""
        unpack = struct.Struct(f"<{code}")
        return unpack.unpack(self._take(unpack.size).data)[0]

    def _take(self, size: int) -> Bytes:
        end = self.at + size
        if end > self._size:
            raise self._fault(f"ends at byte {self._size}, but its header needs bytes up to {end}")
        taken, self.at = self._data[self.at : end], end
        return taken

    def _strings(self, count: int, limit: int = _MAX_STRING_BYTES) -> list[str]:
        """`count` strings. One loop over local names: a vocabulary has 262,144 and takes 0.1 s."""
        view, size, at, length_at = self._data.data, self._size, self.at, struct.Struct("<Q").unpack_from
        strings: list[str] = []
        for _ in range(count):
            start = at + 8
            length = length_at(view, at)[0] if start <= size else 0
            at = start + length
            if at > size:
                raise self._fault(f"ends at byte {size}, but a string in its header needs bytes up to {at}")
            if length > limit:
                raise self._fault(f"has a string of {length} bytes at byte {start}, and at most {limit} are possible")
            try:
                strings.append(str(view[start:at], "utf-8"))
            except UnicodeDecodeError as error:
                raise self._fault(f"holds a string at byte {start} that is not UTF-8") from error
        self.at = at
        return strings

    def _value(self, key: str, kind: int) -> Any:
        if kind == _STRING:
            return self._strings(1)[0]
        if kind == _ARRAY:
            return self._array(key, self.number("I"), self.number("Q"))
        if kind not in _NUMBERS:
            raise self._fault(f"has a value of unknown type {kind} under the metadata key {key}")
        value = self.number(_NUMBERS[kind])
        # A float32 as the shortest decimal that rounds to it: 1e-06, as in config.json, not 9.999999974752427e-07.
        return float(str(np.float32(value))) if _NUMBERS[kind] == "f" else value

    def _array(self, key: str, kind: int, count: int) -> Any:
        """list[str], or a numeric view of the mapping."""
        if kind == _ARRAY:
            raise self._fault(f"has an array of arrays under the metadata key {key}, which no Gemma file needs")
        if kind != _STRING and kind not in _NUMBERS:
            raise self._fault(f"has an array of unknown type {kind} under the metadata key {key}")
        dtype = None if kind == _STRING else np.dtype(f"<{_NUMBERS[kind]}")
        self._check_count(f"items in the array {key}", count, _MAX_ITEMS, dtype.itemsize if dtype else _FEWEST_BYTES)
        return self._take(count * dtype.itemsize).view(dtype) if dtype else self._strings(count)

    def _entry(self) -> tuple[str, tuple[int, ...], int, int]:
        """(name, row-major shape, type, offset into the data section) of the next tensor."""
        name, dimensions = self._strings(1, _MAX_NAME_BYTES)[0], self.number("I")
        if not 1 <= dimensions <= _MAX_DIMENSIONS:
            raise self._fault(f"gives tensor {name} {dimensions} dimensions; 1 to {_MAX_DIMENSIONS} are possible")
        shape = tuple(self.number("Q") for _ in range(dimensions))[::-1]
        return name, shape, self.number("I"), self.number("Q")

    def _tensor(self, name: str, shape: tuple[int, ...], kind: int, offset: int) -> Tensor:
        if (known := _type(kind)) not in _READ:
            shown = known if known != "-" else f"number {kind}"
            nearest = f"{_INSTEAD[known]}, the nearest, or another of " if known in _INSTEAD else "one of "
            problem = f"stores tensor {name} as type {shown}, which is not supported"
            formats = ", ".join(format for format in _READ if format in WEIGHT_FORMATS)
            raise self._fault(problem, f"Use a file quantized to {nearest}{formats}")
        if 0 in shape:
            raise self._fault(f"gives tensor {name} the empty shape {shape}")
        if shape[-1] % (block := BLOCKS[known][0]):
            raise self._fault(f"gives tensor {name} rows of {shape[-1]}, not a multiple of {known}'s block of {block}")
        end = offset + bytes_as(shape, known)
        if end > self._size:
            raise self._fault(f"ends at byte {self._size}, but tensor {name} needs bytes {offset} to {end}")
        return Tensor(name, known, shape, self._data[offset:end])

    def _check_count(self, what: str, count: int, limit: int, item_bytes: int = _FEWEST_BYTES) -> None:
        """Refuse a count that the rest of the file cannot hold, before anything loops over it."""
        room = (self._size - self.at) // item_bytes
        if count > min(limit, room):
            reason = f"the rest of the file has room for {room}" if room < limit else f"at most {limit} are possible"
            raise self._fault(f"claims {count} {what}, but {reason}")
