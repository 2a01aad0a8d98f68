from __future__ import annotations

import dataclasses
import stat

import numpy as np
import pytest

from outrider.tokenizer import merge_cache, merges


@pytest.fixture
def some(small_tables, tmp_path, monkeypatch):
    """Tables of a few tokens that are worth keeping all the same, with a cache of their own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(merges, "_WORTH_KEEPING", 0)
    return small_tables


@pytest.fixture
def searches(monkeypatch):
    """How often merges were looked for rather than read."""
    counted = []
    find = merges.find_merges
    monkeypatch.setattr(merges, "find_merges", lambda tables: counted.append(1) or find(tables))
    return counted


def test_merges_are_found_once_and_then_read(some, searches):
    first = merges.merges_of(some)
    assert len(first) > 1000
    assert np.array_equal(merges.merges_of(some), first)
    assert len(searches) == 1
    file = merge_cache.file_for(some)
    assert [entry.name for entry in file.parent.iterdir()] == [file.name]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "longer", "a folder", "another vocabulary's"])
def test_a_damaged_file_is_found_out_and_written_again(some, searches, damage):
    expected = merges.merges_of(some)
    file = merge_cache.file_for(some)
    content = bytearray(file.read_bytes())
    if damage == "a folder":
        file.unlink()
        file.mkdir()
    elif damage == "another vocabulary's":
        merge_cache.write(file, expected + 3500)
    else:
        content[len(content) // 2] ^= 1
        damaged = {"empty": b"", "cut": content[:-4], "flipped": content, "longer": file.read_bytes() + bytes(8)}
        file.write_bytes(damaged[damage])
    assert np.array_equal(merges.merges_of(some), expected)
    assert np.array_equal(merges.merges_of(some), expected)
    assert len(searches) == (3 if damage == "a folder" else 2)
    assert not list(file.parent.glob("*.partial"))


def test_a_cache_that_cannot_be_written_is_no_error(some, searches, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(merges.merges_of(some)) == len(merges.merges_of(some))
    assert len(searches) == 2


def test_a_user_without_a_home_is_no_error(some, searches, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(merge_cache.Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    assert len(merges.merges_of(some)) > 1000
    assert len(searches) == 1


def test_other_tables_have_another_file(some):
    other_scores = some.scores.copy()
    other_scores[-1] += 1
    other_tokens = [*some.tokens[:-1], "other"]
    files = {merge_cache.file_for(some)}
    files.add(merge_cache.file_for(dataclasses.replace(some, scores=other_scores)))
    files.add(merge_cache.file_for(dataclasses.replace(some, tokens=other_tokens)))
    files.add(merge_cache.file_for(dataclasses.replace(some, token_types=None)))
    files.add(merge_cache.file_for(dataclasses.replace(some, merges=["a b"])))
    files.add(merge_cache.file_for(dataclasses.replace(some, model="gemma4")))
    assert len(files) == 6


def test_a_small_vocabulary_is_not_kept(some, monkeypatch):
    monkeypatch.setattr(merges, "_WORTH_KEEPING", 3501)
    merges.merges_of(some)
    assert not merge_cache.file_for(some).exists()
