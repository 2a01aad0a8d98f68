"""GGUF files in parts, as `gguf-split` and the gguf package write them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny_checkpoints as tiny_files
from hypothesis import given
from hypothesis import strategies as st
from tiny_checkpoints import Tiny

from outrider.checkpoints import open_checkpoint
from outrider.checkpoints.gguf.split import part_names
from outrider.errors import CheckpointError


@pytest.fixture
def parts(tiny: Callable[[str], Tiny], tmp_path: Path) -> list[Path]:
    tiny_files.save_gguf(tiny("gemma4-e2b").model, tmp_path / "model.gguf", split=60)
    return sorted(tmp_path.glob("*.gguf"))


def test_any_part_opens_the_whole(parts: list[Path], tiny: Callable[[str], Tiny]) -> None:
    assert len(parts) > 2
    whole = open_checkpoint(tiny("gemma4-e2b").gguf)
    for part in parts:
        checkpoint = open_checkpoint(part)
        assert checkpoint.config == whole.config
        assert checkpoint.path == parts[0]
        assert checkpoint.files == tuple(parts)
        assert list(checkpoint.tensors) == list(whole.tensors)
        for name, tensor in checkpoint.tensors.items():
            np.testing.assert_array_equal(tensor.data, whole.tensors[name].data, err_msg=name)


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path)
    return str(caught.value)


def test_a_part_that_is_not_there_is_named(parts: list[Path]) -> None:
    parts[1].unlink()
    assert f"{parts[1].name} is not beside it" in refusal(parts[0])
    assert "Download all parts" in refusal(parts[2])


def test_a_part_under_another_name(parts: list[Path]) -> None:
    alone = shutil.copy(parts[0], parts[0].with_name("alone.gguf"))
    assert f"one of {len(parts)} parts" in refusal(Path(alone))


def test_parts_in_the_wrong_order(parts: list[Path]) -> None:
    first, second = parts[1].read_bytes(), parts[2].read_bytes()
    parts[1].write_bytes(second)
    parts[2].write_bytes(first)
    assert "another file than its name says" in refusal(parts[0])


def test_a_part_of_another_model(parts: list[Path], tiny: Callable[[str], Tiny], tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    tiny_files.save_gguf(tiny("gemma4-dense").model, other / "model.gguf", split=30)
    foreign = sorted(other.glob("*.gguf"))
    shutil.copy(foreign[1], parts[1])
    assert "parts" in refusal(parts[0])


def test_a_part_that_is_cut_off(parts: list[Path]) -> None:
    parts[-1].write_bytes(parts[-1].read_bytes()[:-1000])
    assert parts[-1].name in refusal(parts[0])


@given(st.text(max_size=40), st.integers(0, 1200), st.integers(0, 1200))
def test_names_of_parts(stem: str, number: int, count: int) -> None:
    name = f"{stem}-{number:05d}-of-{count:05d}.gguf"
    names = part_names(name)
    assert name in names
    assert len(names) == len(set(names)) == (count if 1 <= number <= count <= 1000 and "\n" not in stem else 1)
