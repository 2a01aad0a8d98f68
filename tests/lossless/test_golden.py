"""The same tokens and logits on every machine: those in golden.json, whatever numpy and the core dispatch to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from outrider.backends import cpu

HERE = Path(__file__).parent
STORED = json.loads((HERE / "golden.json").read_text("utf-8"))
DISPATCHED = " ".join(np.show_config(mode="dicts")["SIMD Extensions"].get("found", []))
"""What numpy finds on this processor beyond what it was compiled for."""


def golden(instruction_set: str, *options: str, **variables: str) -> dict[str, Any]:
    """What tests/lossless/golden.py computes in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent), **variables}
    command = [sys.executable, str(HERE / "golden.py"), "--instruction-set", instruction_set, *options]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def check(found: dict[str, Any]) -> None:
    assert found.keys() == STORED.keys()
    for case, answers in STORED.items():
        for what, expected in answers.items():
            assert found[case][what] == expected, f"{case}, {what}: see tests/lossless/golden.py for what this means"


@pytest.mark.slow
@pytest.mark.parametrize(
    "instruction_set",
    [*cpu.instruction_sets()[:-1], pytest.param("portable", marks=pytest.mark.full)],  # which takes minutes
)
def test_every_instruction_set_gives_the_stored_answers(instruction_set):
    check(golden(instruction_set))


@pytest.mark.slow
def test_numpys_dispatch_and_flushed_denormals_change_nothing():
    check(golden(cpu.instruction_set(), "--flush-denormals", NPY_DISABLE_CPU_FEATURES=DISPATCHED))
