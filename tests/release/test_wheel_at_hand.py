"""`make run` installs a wheel from dist/ only where it is what compiling the checkout would give."""

from __future__ import annotations

import os
import platform
import runpy
import sys
from pathlib import Path

import pytest

wheel_at_hand = runpy.run_path(str(Path(__file__).parents[2] / "release" / "wheel_at_hand.py"))["wheel_at_hand"]

PYTHON = "cp311-cp311" if sys.version_info < (3, 12) else "cp312-abi3"
SYSTEM = "macosx_11_0" if sys.platform == "darwin" else "manylinux_2_27_x86_64.manylinux_2_28"
NAME = f"outrider-1.2.3-{PYTHON}-{SYSTEM}_{platform.machine()}.whl"


@pytest.fixture
def checkout(tmp_path):
    """A checkout whose files are all from second 1000, with a wheel that is newer."""
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "1.2.3"\n')
    for file in ("CMakeLists.txt", "src/outrider/llm.py", "csrc/kernels/linear.h", f"dist/{NAME}"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    for path in tmp_path.rglob("*"):
        os.utime(path, (1000, 1000))
    os.utime(tmp_path / "dist" / NAME, (2000, 2000))
    return tmp_path


def test_one_that_fits(checkout):
    assert wheel_at_hand(checkout) == checkout / "dist" / NAME


@pytest.mark.parametrize("changed", ["src/outrider/llm.py", "csrc/kernels/linear.h", "pyproject.toml"])
def test_none_that_is_older_than_a_source(checkout, changed):
    os.utime(checkout / changed, (3000, 3000))
    assert wheel_at_hand(checkout) is None


def test_what_a_build_leaves_is_no_source(checkout):
    (checkout / "src" / "outrider" / "_native.abi3.so").touch()
    assert wheel_at_hand(checkout) == checkout / "dist" / NAME


@pytest.mark.parametrize(
    ("part", "other"),
    [("1.2.3", "1.2.2"), (PYTHON, "cp310-cp310"), (platform.machine(), "riscv64"), (SYSTEM, "musllinux_1_2")],
)
def test_none_for_another_version_python_processor_or_system(checkout, part, other):
    wheel = checkout / "dist" / NAME
    wheel.rename(wheel.with_name(NAME.replace(part, other)))
    assert wheel_at_hand(checkout) is None


def test_none_without_dist(checkout):
    (checkout / "dist" / NAME).unlink()
    (checkout / "dist").rmdir()
    assert wheel_at_hand(checkout) is None
