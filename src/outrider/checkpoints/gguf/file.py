"""GGUF files, memory-mapped, through the format's own `gguf` package, trusting nothing in the header.

`gguf.GGUFReader` knows the layout; this subclass changes two things about it. It reads arrays in one go (the package
walks them element by element through numpy: 11 s for a 262,144-token vocabulary, 0.2 s here), and it checks every
count, length and offset against the file before it is used: numpy slices past the end shrink silently, so a truncated
file would otherwise come out as short arrays.
"""

from __future__ import annotations

import math
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFReader, GGUFValueType, ReaderField
from gguf.gguf_reader import READER_SUPPORTED_VERSIONS

from outrider.checkpoints.checkpoint import FORMATS
from outrider.errors import CheckpointError

_AGAIN = "The file is damaged or incomplete: download or convert it again"

# Far above what any model has (Gemma 4 31B: 833 tensors, some 60 keys, 262,144 tokens, 514,906 merges), and low enough
# that a corrupt count is refused at once instead of after a long walk.
_MAX_KEYS = 1 << 16
_MAX_TENSORS = 1 << 16
_MAX_ARRAY = 1 << 24
_MAX_NAME_BYTES = 1 << 16
_MAX_DIMENSIONS = 4
_MAX_ALIGNMENT = 1 << 20
_MIN_FILE_BYTES = 24
_MIN_KEY_BYTES = 8 + 4 + 1
_MIN_TENSOR_BYTES = 8 + 4 + 4 + 8


@dataclass(frozen=True)
class GGUFTensor:
    """One entry of the tensor table. `shape` is row-major (the file's dimensions reversed); `data` the (bytes,) uint8
    read-only view of the mapping."""

    name: str
    format: str
    shape: tuple[int, ...]
    offset: int
    data: npt.NDArray[np.uint8]


class GGUFFile(GGUFReader):
    """An opened GGUF file.

    Attributes:
        path: where it lies.
        values: metadata key -> int, float, bool, str, list[str] or a one-dimensional numeric array.
        table: tensor name -> GGUFTensor, in file order.

    Raises:
        CheckpointError: the file cannot be read, is not GGUF, or its header does not hold together.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.values: dict[str, Any] = {}
        self.table: dict[str, GGUFTensor] = {}
        try:
            size = path.stat().st_size
            with path.open("rb") as file:
                start = file.read(8)
        except OSError as error:
            raise CheckpointError(
                f"cannot be read ({error.strerror or error})",
                path=path,
                remedy="Check the path and the permissions",
            ) from error
        if start[:4] != b"GGUF":
            raise self.fault(
                f"is not a GGUF file (it begins with {start[:4]!r}, not b'GGUF')", "Pass a .gguf model file"
            )
        if size < _MIN_FILE_BYTES:
            raise self.fault(f"ends after {size} bytes, inside the header")
        self._check_version(start[4:])
        try:
            super().__init__(path)
        except CheckpointError:
            raise
        except (ValueError, KeyError, IndexError, OverflowError, OSError, TypeError) as error:
            raise self.fault(f"has a header that cannot be read ({error})") from error

    def fault(self, problem: str, remedy: str = _AGAIN) -> CheckpointError:
        """A CheckpointError about this file."""
        return CheckpointError(problem, path=self.path, remedy=remedy)

    # The package's own reading steps, each with its checks in front.

    def _get(
        self,
        offset: int,
        dtype: npt.DTypeLike,
        count: int = 1,
        override_order: Literal["I", "S", "<"] | None = None,
    ) -> npt.NDArray[Any]:
        """`count` items of `dtype` at `offset`, as a view of the mapping."""
        count, itemsize = int(count), np.dtype(dtype).itemsize
        end = int(offset) + count * itemsize
        if count < 0 or end > len(self.data):
            raise self.fault(f"ends at byte {len(self.data)}, but its header asks for bytes up to {end}")
        # A plain array: each slice of a np.memmap costs some 10 us in its bookkeeping.
        plain = self.data.view(np.ndarray)[offset:end].view(dtype)
        return plain.view(plain.dtype.newbyteorder(override_order or self.byte_order))

    def _get_str(self, offset: int) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint8]]:
        length = self._get(offset, np.uint64)
        return length, self._get(offset + 8, np.uint8, int(length[0]))

    def _name_at(self, offset: int) -> str:
        """The key or tensor name at `offset`."""
        length = int(self._get(offset, np.uint64)[0])
        if length > _MAX_NAME_BYTES:
            raise self.fault(f"has a name of {length} bytes at byte {offset}")
        return self._text(bytes(self._get(offset + 8, np.uint8, length)), f"the name at byte {offset}")

    def _build_fields(self, offs: int, count: int) -> int:
        self._check_count("metadata keys", int(count), _MAX_KEYS, _MIN_KEY_BYTES, offs)
        for _ in range(int(count)):
            key = self._name_at(offs)
            if key in self.fields:
                raise self.fault(f"holds the metadata key {key} twice")
            offs = super()._build_fields(offs, 1)
            self.values[key] = self._value(self.fields[key])
        return offs

    def _get_field_parts(
        self, orig_offs: int, raw_type: int
    ) -> tuple[int, list[npt.NDArray[Any]], list[int], list[GGUFValueType]]:
        try:
            kind = GGUFValueType(int(raw_type))
        except ValueError as error:
            raise self.fault(f"has a metadata value of unknown type {int(raw_type)} at byte {orig_offs}") from error
        if kind == GGUFValueType.ARRAY:
            return self._get_array(orig_offs)
        size, parts, data, types = super()._get_field_parts(orig_offs, raw_type)
        return size, parts, data, types

    def _get_array(self, offset: int) -> tuple[int, list[npt.NDArray[Any]], list[int], list[GGUFValueType]]:
        """A whole array in one part: a numeric view, or an object array of str."""
        item, length = self._get(offset, np.uint32), self._get(offset + 4, np.uint64)
        start, count = offset + 12, int(length[0])
        try:
            kind = GGUFValueType(int(item[0]))
        except ValueError as error:
            raise self.fault(f"has an array of unknown type {int(item[0])} at byte {offset}") from error
        if kind == GGUFValueType.STRING:
            self._check_count(f"strings in the array at byte {offset}", count, _MAX_ARRAY, 8, start)
            strings, end = self._strings(start, count)
            values = np.empty(count, dtype=object)
            values[:] = strings
        elif (dtype := self.gguf_scalar_to_np.get(kind)) is not None:
            itemsize = np.dtype(dtype).itemsize
            self._check_count(f"items in the array at byte {offset}", count, _MAX_ARRAY, itemsize, start)
            values, end = self._get(start, dtype, count), start + count * itemsize
        else:
            raise self.fault(f"has an array of arrays at byte {offset}, which no Gemma file needs")
        return end - offset, [item, length, values], [2], [GGUFValueType.ARRAY, kind]

    def _strings(self, offset: int, count: int) -> tuple[list[str], int]:
        """`count` strings that lie one after another, and the offset behind them."""
        view, size = self.data.data, len(self.data)
        length_at = struct.Struct("<Q" if self.byte_order == "I" else ">Q").unpack_from
        strings: list[str] = []
        for _ in range(count):
            start = offset + 8
            if start > size:
                raise self.fault(f"ends at byte {size}, inside an array of {count} strings")
            offset = start + length_at(view, offset)[0]
            if offset > size:
                raise self.fault(f"ends at byte {size}, but a string in its header asks for bytes up to {offset}")
            try:
                strings.append(str(view[start:offset], "utf-8"))
            except UnicodeDecodeError as error:
                raise self.fault(f"holds a string at byte {start} that is not UTF-8") from error
        return strings, offset

    def _build_tensor_info(self, offs: int, count: int) -> tuple[int, list[ReaderField]]:
        self._check_count("tensors", int(count), _MAX_TENSORS, _MIN_TENSOR_BYTES, offs)
        return super()._build_tensor_info(offs, int(count))

    def _get_tensor_info_field(self, orig_offs: int) -> ReaderField:
        name = self._name_at(orig_offs)
        dimensions = int(self._get(orig_offs + 8 + len(name.encode()), np.uint32)[0])
        if not 1 <= dimensions <= _MAX_DIMENSIONS:
            raise self.fault(f"gives tensor {name} {dimensions} dimensions; 1 to {_MAX_DIMENSIONS} are possible")
        return super()._get_tensor_info_field(orig_offs)

    def _build_tensors(self, start_offs: int, fields: list[ReaderField]) -> None:
        """The tensor table, every entry inside the file and none overlapping another."""
        alignment = int(self.alignment)
        if alignment > _MAX_ALIGNMENT or alignment % 8:
            raise self.fault(f"asks for an alignment of {alignment} bytes")
        for field in fields:
            if field.name in self.table:
                raise self.fault(f"holds the tensor {field.name} twice")
            self.table[field.name] = self._tensor(field, int(start_offs), alignment)
        end, previous = 0, ""
        for tensor in sorted(self.table.values(), key=lambda tensor: tensor.offset):
            if tensor.offset < end:
                raise self.fault(f"stores the tensors {previous} and {tensor.name} over each other")
            end, previous = tensor.offset + len(tensor.data), tensor.name

    def _tensor(self, field: ReaderField, start: int, alignment: int) -> GGUFTensor:
        _, _, _, dims, raw_type, raw_offset = field.parts
        name, shape = field.name, tuple(int(n) for n in reversed(dims.tolist()))
        try:
            kind = GGMLQuantizationType(int(raw_type[0])).name
        except ValueError:
            kind = f"number {int(raw_type[0])}"
        if kind not in FORMATS:
            raise self.fault(
                f"stores tensor {name} as type {kind}, which is not supported",
                f"Use a file quantized to one of {', '.join(FORMATS[:-1])}",
            )
        if 0 in shape:
            raise self.fault(f"gives tensor {name} the empty shape {shape}")
        block, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
        if shape[-1] % block:
            raise self.fault(f"gives tensor {name} rows of {shape[-1]}, not a multiple of {kind}'s block of {block}")
        size, offset = math.prod(shape) // block * block_bytes, start + int(raw_offset[0])
        if int(raw_offset[0]) % alignment:
            raise self.fault(f"stores tensor {name} at byte {offset}, off its alignment of {alignment}")
        if offset + size > len(self.data):
            raise self.fault(
                f"ends at byte {len(self.data)}, but tensor {name} needs bytes {offset} to {offset + size}"
            )
        data = self._get(offset, np.uint8, size)
        data.flags.writeable = False
        return GGUFTensor(name, kind, shape, offset, data)

    # What they have in common.

    def _value(self, field: ReaderField) -> Any:
        """A metadata value as plain Python, or as an array."""
        kind, data = field.types[0], field.parts[field.data[0]]
        if kind == GGUFValueType.ARRAY:
            return data.tolist() if field.types[-1] == GGUFValueType.STRING else data
        if kind == GGUFValueType.STRING:
            return self._text(data.tobytes(), f"the value of {field.name}")
        if kind == GGUFValueType.FLOAT32:
            # The shortest decimal that rounds to it: 1e-06 and not 9.999999974752427e-07, as config.json has it.
            return float(str(data[0]))
        return data.tolist()[0]

    def _text(self, raw: bytes, what: str) -> str:
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.fault(f"is not UTF-8 in {what}") from error

    def _check_version(self, raw: bytes) -> None:
        version = int.from_bytes(raw, sys.byteorder)
        if not version & 0xFFFF:
            raise self.fault("is stored in the other byte order", "Convert it for this machine's byte order")
        if version not in READER_SUPPORTED_VERSIONS:
            raise self.fault(f"is GGUF version {version}, not 2 or 3", "Convert it again with a current converter")

    def _check_count(self, what: str, count: int, limit: int, item_bytes: int, offset: int) -> None:
        """Refuse a count that the rest of the file cannot hold, before anything loops over it."""
        room = (len(self.data) - int(offset)) // item_bytes
        if count > min(limit, room):
            reason = f"the rest of it has room for {room}" if room < limit else f"at most {limit} make sense"
            raise self.fault(f"claims {count} {what}, but {reason}")
