"""Pages of one model are never taken for another's, nor those of an earlier arithmetic for today's."""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from outrider.cache import identity as module
from outrider.cache.identity import content_digest, identity

ROOT = Path(__file__).parents[2]


def test_the_arithmetic_changes_with_the_stored_answers():
    checksum = re.search(r"kChecksum = (0x\w+);", (ROOT / "csrc/tests/main.cpp").read_text("utf-8"))
    assert checksum is not None
    golden = (ROOT / "tests/lossless/golden.json").read_bytes()
    expected = hashlib.sha256(golden + checksum[1].encode()).hexdigest()[:16]
    assert expected == module.ARITHMETIC, (
        "golden.json or kChecksum has changed, so pages on disk may hold other keys and values than are computed now: "
        f'set ARITHMETIC = "{expected}" in src/outrider/cache/identity.py'
    )


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(np.random.default_rng(1).bytes((3 << 20) + 777))
    return path


def test_names_and_order_of_files_do_not_count(weights, tmp_path):
    other, config = tmp_path / "other name", tmp_path / "config.json"
    shutil.copy(weights, other)
    config.write_text("{}")
    assert content_digest(other) == content_digest(weights)
    assert identity(1, files=[weights, config]) == identity(1, files=[config, other])


@pytest.mark.parametrize("facts", [("float16",), ("int8", 3), ()])
def test_other_facts_make_another_identity(weights, facts):
    assert identity(*facts, files=[weights]) != identity("int8", files=[weights])


@pytest.mark.parametrize("size", [0, 1, 4095, 1 << 20, (1 << 20) + 1, 3 << 20])
@pytest.mark.parametrize("more", [-1, 1, 4096])
def test_another_size_makes_another_digest(tmp_path, size, more):
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(bytes(size))
    two.write_bytes(bytes(max(size + more, 0)))
    assert (content_digest(one) == content_digest(two)) == (size + more < 0)


@pytest.mark.parametrize("first", [0, 1, 4000, 2 << 20, (3 << 20) + 777 - 4096])
def test_a_changed_vector_changes_the_digest(weights, first):
    """The least that training changes: one vector of 2,048 bfloat16 numbers."""
    before = content_digest(weights)
    data = bytearray(weights.read_bytes())
    for at in range(first, min(first + 4096, len(data))):
        data[at] ^= 1
    weights.write_bytes(data)
    assert content_digest(weights) != before


def test_an_arithmetic_of_its_own(weights, monkeypatch):
    before = identity(files=[weights])
    monkeypatch.setattr(module, "ARITHMETIC", "another")
    assert identity(files=[weights]) != before
