"""Codes and small floats out of bytes: what the readers of the quantized formats share.

Packed codes are dense: element i of a row has the bits [i * bits, (i + 1) * bits), counted from the lowest bit of the
row's first byte. A row of little-endian 32-bit words is the same stream of bytes.
"""

from __future__ import annotations

import numpy as np

from outrider.arrays import Bytes, Floats

E2M1: Floats = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)
"""The 16 values of a 4-bit float (OCP microscaling formats): sign, two bits of exponent, one of mantissa."""


def _e4m3() -> Floats:
    code = np.arange(256)
    exponent, mantissa = (code >> 3) & 15, (code & 7).astype(np.float64)
    size = np.where(exponent == 0, np.ldexp(mantissa, -9), np.ldexp(1 + mantissa / 8, exponent - 7))
    size[(code & 127) == 127] = np.nan
    return np.where(code < 128, size, -size).astype(np.float32)


E4M3: Floats = _e4m3()
"""The 256 values of an 8-bit float of the kind "fn": no infinities, 448 the largest, 0x7F and 0xFF no numbers."""


def unpacked(data: Bytes, rows: int, columns: int, bits: int) -> Bytes:
    """(rows, columns) codes; what a row has beyond its last element is left out."""
    rows_of_bytes = data.reshape(rows, -1)
    if bits == 8:
        return rows_of_bytes[:, :columns]
    if bits in (2, 4):
        shifts = np.arange(0, 8, bits, dtype=np.uint8)
        return (rows_of_bytes[:, :, None] >> shifts & np.uint8((1 << bits) - 1)).reshape(rows, -1)[:, :columns]
    # Eight codes of another width fill `bits` bytes, which fit one 64-bit word.
    groups = -(-columns // 8)
    words = np.zeros((rows, groups, 8), np.uint8)
    words[:, :, :bits] = _padded(rows_of_bytes, groups * bits).reshape(rows, groups, bits)
    codes = words.view("<u8") >> np.arange(0, 8 * bits, bits, dtype=np.uint64) & np.uint64((1 << bits) - 1)
    return codes.astype(np.uint8).reshape(rows, -1)[:, :columns]


def packed(codes: Bytes, bits: int) -> Bytes:
    """(bytes,) of (rows, columns) codes of 2, 4 or 8 bits; rows fill whole bytes."""
    if bits == 8:
        return np.ascontiguousarray(codes).reshape(-1)
    per_byte = 8 // bits
    out = codes[:, 0::per_byte].copy()
    for place in range(1, per_byte):
        out |= codes[:, place::per_byte] << np.uint8(bits * place)
    return out.reshape(-1)


def paired(codes: Bytes, group: int) -> Bytes:
    """(groups, group / 2) bytes of packed 4-bit codes as GGUF's blocks have them.

    Element j of a group is in the low half of byte j, and j + group / 2 in the high half.
    """
    first, second = codes.reshape(-1, 2, group // 4).transpose(1, 0, 2)
    out = np.empty((*first.shape, 2), np.uint8)
    out[..., 0] = first & np.uint8(0x0F) | second << np.uint8(4)
    out[..., 1] = first >> np.uint8(4) | second & np.uint8(0xF0)
    return out.reshape(-1, group // 2)


def _padded(rows_of_bytes: Bytes, size: int) -> Bytes:
    """Rows of exactly `size` bytes: cut off, or filled with zeros."""
    out = np.zeros((len(rows_of_bytes), size), np.uint8)
    kept = min(size, rows_of_bytes.shape[1])
    out[:, :kept] = rows_of_bytes[:, :kept]
    return out
