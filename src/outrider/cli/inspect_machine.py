"""`outrider inspect --machine`: cores, memory and instruction sets here, and what the kernels reach with each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from outrider.checkpoints.checkpoint import Format
from outrider.console import print_facts
from outrider.machine import size

_FORMAT: Format = "Q4_0"
_SLOW = "portable"
"""Kernels without vectors take many seconds to measure: only where there are no others."""


def describe_machine() -> dict[str, Any]:
    """The facts as plain data; bytes, bytes/s and multiply-adds/s. Measures for two seconds per instruction set.

    `kernels` has an entry for each instruction set that is built in, those available here first, fastest first. What
    they reach is measured with 4-bit weights (Q4_0): reading them from memory for one row, and multiplying 16 rows with
    weights in the cache. It is None for those that are not measured.
    """
    from outrider.backends import cpu
    from outrider.cores import cores
    from outrider.machine import memory

    here, left, used, available = cores(), memory(), cpu.instruction_set(), cpu.instruction_sets()
    measured = [name for name in available if name != _SLOW] or available
    kernels = [
        {
            "instruction_set": name,
            "available": name in available,
            "used": name == used,
            **(_reached(name, here.threads) if name in measured else _UNMEASURED),
        }
        for name in [*available, *(name for name in cpu.built_instruction_sets() if name not in available)]
    ]
    return {
        "threads": here.threads,
        "threads_why": here.why,
        "available_bytes": left.available,
        "in_container": left.contained,
        "measured_format": _FORMAT,
        "kernels": kernels,
    }


_UNMEASURED: dict[str, float | None] = {"bytes_per_second": None, "multiply_adds_per_second": None}


def _reached(instruction_set: str, threads: int) -> dict[str, float | None]:
    from outrider.backends import cpu
    from outrider.roofline.measured import measure_hardware

    before = cpu.instruction_set()
    cpu.choose_instruction_set(instruction_set)
    try:
        found = measure_hardware(_FORMAT, threads)
    finally:
        cpu.choose_instruction_set(before)
    return {name: getattr(found, name) for name in _UNMEASURED}


def show_machine(found: dict[str, Any]) -> None:
    """The facts for a person."""
    print_facts(_lines(found))


def _lines(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "threads", f"{found['threads']} ({found['threads_why']})"
    container = " of the container's limit" if found["in_container"] else ""
    yield "memory", f"{size(found['available_bytes'])} available{container}"
    for kernels in found["kernels"]:
        name = kernels["instruction_set"]
        if not kernels["available"]:
            yield name, "built in; this processor lacks it"
            continue
        state = "used" if kernels["used"] else "available"
        if kernels["multiply_adds_per_second"] is None:
            yield name, state
            continue
        reached = f"{kernels['multiply_adds_per_second'] / 1e9:.0f} G multiply-adds/s"
        reading = f"{kernels['bytes_per_second'] / 1e9:.1f} GB/s read from memory"
        yield name, f"{state}; with {found['measured_format']} weights {reached}, {reading}"
