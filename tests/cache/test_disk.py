"""Pages in files are the bytes that were put, or are not there: whatever happened to the folder."""

from __future__ import annotations

import hashlib
import logging
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outrider.cache import disk
from outrider.cache.disk import PageId, PageStore
from outrider.errors import UsageError

IDENTITY, SIZES = b"i" * 32, (16_000, 5_000)
LIMIT = 2_000_000
FITS = LIMIT // 16_200
"""Pages of group 0."""


def key(number):
    return hashlib.sha256(str(number).encode()).digest()


def of(number, group=0, parent=-1):
    return PageId(key(parent), key(number), group)


def page(number, group=0):
    return np.random.default_rng([number, group]).integers(0, 256, SIZES[group], np.uint8)


def put(store, number, group=0, parent=-1):
    store.put(of(number, group, parent), str(number).encode(), page(number, group))


def has(store, number, group=0, parent=-1):
    """Whether the page is there; if so, whole."""
    found = store.get(of(number, group, parent))
    assert found is None or (found.note == str(number).encode() and (found.data == page(number, group)).all())
    return found is not None


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "pages"


@pytest.fixture
def store(folder):
    return PageStore(folder, IDENTITY, SIZES, most_bytes=LIMIT)


def files(folder):
    return sorted(folder.iterdir())


def used(folder):
    return sum(path.stat().st_size for path in folder.iterdir())


def test_what_is_put_is_what_is_found(store, folder):
    for group in (0, 1):
        put(store, 1, group)
    for reader in (store, PageStore(folder, IDENTITY, SIZES, most_bytes=LIMIT)):
        assert has(reader, 1, 0)
        assert has(reader, 1, 1)
        assert not has(reader, 2)
        assert not has(reader, 1, parent=5)


def test_the_pages_that_follow_another(store, folder):
    for number in range(5):
        put(store, number, parent=7)
    put(store, 9, group=1, parent=7)
    put(store, 10, parent=8)
    for reader in (store, PageStore(folder, IDENTITY, SIZES, most_bytes=LIMIT)):
        assert list(reader.notes(key(7), 0, 100))[-5:] == [b"4", b"3", b"2", b"1", b"0"]
        assert list(reader.notes(key(7), 1, 100)) == [b"9"]
        assert list(reader.notes(key(8), 0, 100)) == [b"10"]
        assert list(reader.notes(key(9), 0, 100)) == []
        assert len(list(reader.notes(key(7), 0, 3))) in (2, 3)  # the newest is one of group 1


def test_a_page_of_another_size_is_a_mistake(store):
    with pytest.raises(ValueError, match="no page of group 1: 16000 bytes"):
        store.put(of(1, 1), b"", page(1))
    with pytest.raises(ValueError, match="with a note of 65537"):
        store.put(of(1), bytes(65537), page(1))


def test_only_the_owner_can_read(store, folder):
    put(store, 1)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [stat.S_IMODE(path.stat().st_mode) for path in files(folder)] == [0o600]


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777])
def test_a_folder_that_others_can_write_to_is_refused(folder, mode):
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(UsageError, match=r"other users can write to .* chmod 700 it"):
        PageStore(folder, IDENTITY, SIZES, most_bytes=LIMIT)


def test_a_folder_that_cannot_be_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UsageError, match="cannot be used"):
            PageStore(folder, IDENTITY, SIZES, most_bytes=LIMIT)


def test_a_limit_that_holds_too_little_is_refused(folder):
    least = 16 * (16_000 + 120 + 65_536)
    with pytest.raises(UsageError, match=r"needs 1\.3 MB for this model, not 1\.3 MB"):
        PageStore(folder, IDENTITY, SIZES, most_bytes=least - 1)
    PageStore(folder, IDENTITY, SIZES, most_bytes=least)


def test_models_share_a_folder_and_no_page(store, folder, caplog):
    put(store, 1)
    another = PageStore(folder, b"j" * 32, SIZES, most_bytes=LIMIT)
    assert not has(another, 1)
    put(another, 1, 1)
    assert has(another, 1, 1)
    assert not has(store, 1, 1)
    assert has(store, 1)
    assert not caplog.records


def test_a_format_of_another_version_is_not_there(store, folder, monkeypatch, caplog):
    put(store, 1)
    monkeypatch.setattr(disk, "_VERSION", 2)
    assert not has(PageStore(folder, IDENTITY, SIZES, most_bytes=LIMIT), 1)
    assert not caplog.records


def cut(path, share):
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])


def lengthened(path, share):
    path.write_bytes(path.read_bytes() + bytes(1 + int(100 * share)))


def flipped(path, share):
    data = bytearray(path.read_bytes())
    at = min(int(8 * len(data) * share), 8 * len(data) - 1)
    data[at // 8] ^= 1 << at % 8
    path.write_bytes(data)


def zeroed(path, share):
    data = path.read_bytes()
    begin = min(int(len(data) * share), len(data) - 8)
    path.write_bytes(data[:begin] + bytes(8) + data[begin + 8 :])


def foreign(path, share):
    path.write_bytes(np.random.default_rng(int(1e9 * share)).bytes(path.stat().st_size))


def linked(path, _share):
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


def piped(path, _share):
    path.unlink()
    os.mkfifo(path)


def another_page(path, _share):
    """A whole page under the name of another."""
    other = next(each for each in path.parent.iterdir() if each != path)
    path.write_bytes(other.read_bytes())


DAMAGE = [cut, lengthened, flipped, zeroed, foreign, linked, piped, another_page]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damage=st.sampled_from(DAMAGE), share=st.floats(0, 1, exclude_max=True), read=st.sampled_from(["get", "notes"]))
def test_a_damaged_page_is_removed_with_one_line(tmp_path_factory, damage, share, read, caplog):
    folder = tmp_path_factory.mktemp("damage") / "pages"
    store = PageStore(folder, IDENTITY, SIZES, most_bytes=LIMIT)
    put(store, 1)
    (path,) = files(folder)
    put(store, 2, parent=3)
    before = path.read_bytes()
    damage(path, share)
    changed = path.is_symlink() or not path.is_file() or path.read_bytes() != before
    caplog.clear()
    if read == "notes":  # which may be damaged: whoever reads them gets the page next
        assert len(list(store.notes(key(-1), 0, 9))) <= 1
    assert has(store, 1) != changed
    if not changed:  # zeros that were zeros
        return
    message = f"{path} is no page of this cache, or damaged: it is removed"
    assert [record.message for record in caplog.records] == [message]
    assert not path.is_symlink()
    assert not path.exists()
    assert not has(store, 1)
    assert list(store.notes(key(-1), 0, 9)) == []
    assert len(caplog.records) == 1
    put(store, 1)
    assert has(store, 1)
    assert has(store, 2, parent=3)


def test_files_of_others_stay(store, folder):
    put(store, 1)
    others = [folder / name for name in ("notes.txt", "0" * 64, f"{'0' * 32}-{'1' * 31}.0.page")]
    for path in others:
        path.write_bytes(bytes(LIMIT))
    for number in range(2 * FITS):
        put(store, number)
    assert all(path.stat().st_size == LIMIT for path in others)


def test_the_least_recently_used_leave_first(store, folder):
    for number in range(80):
        put(store, number)
    for number in (1, 0):
        put(store, number)
    for number in range(80, 160):
        put(store, number)
        assert used(folder) <= LIMIT
    kept = [number for number in range(160) if has(store, number)]
    assert kept[:2] == [0, 1]
    assert kept[2:] == list(range(162 - len(kept), 160))
    assert used(folder) > LIMIT * 0.85
    assert sorted(store.notes(key(-1), 0, 999), key=int) == [str(number).encode() for number in kept]


def test_a_lower_limit_holds_from_the_start(store, folder):
    for number in range(100):
        put(store, number)
    PageStore(folder, IDENTITY, SIZES, most_bytes=1_400_000)
    assert 1_200_000 < used(folder) <= 1_400_000


def test_what_a_killed_process_left_is_removed_in_time(store, folder):
    put(store, 1)
    (path,) = files(folder)
    fresh, left = path.with_name(f"{path.name}.0a1b2c3d.partial"), path.with_name(f"{path.name}.00000000.partial")
    for partial in (fresh, left):
        partial.write_bytes(b"x")
    os.utime(left, (0, time.time() - 4000))
    PageStore(folder, IDENTITY, SIZES, most_bytes=LIMIT)
    assert files(folder) == [path, fresh]


def test_a_full_disk_is_one_line(store, folder, monkeypatch, caplog):
    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", full)
        for number in range(3):
            put(store, number)
    message = f"pages cannot be written to {folder} (No space left on device)"
    assert [record.message for record in caplog.records] == [message]
    assert files(folder) == []
    put(store, 1)
    assert has(store, 1)


def test_a_folder_that_vanishes_is_no_error(store, folder, caplog):
    put(store, 1)
    for path in files(folder):
        path.unlink()
    folder.rmdir()
    assert not has(store, 1)
    for number in range(10):
        put(store, number)
    assert len(caplog.records) == 1


WRITER = """
import hashlib, sys
import numpy as np
from pathlib import Path
from outrider.cache.disk import PageId, PageStore

store = PageStore(Path(sys.argv[1]), b"i" * 32, (16_000, 5_000), most_bytes=2_000_000)
wrong = 0
for turn in range(400):
    number = (turn * 7 + int(sys.argv[2])) % 250
    page = PageId(b"p" * 32, hashlib.sha256(str(number).encode()).digest(), 0)
    data = np.random.default_rng([number, 0]).integers(0, 256, 16_000, np.uint8)
    found = store.get(page)
    wrong += found is not None and not (found.note == b"note" and (found.data == data).all())
    store.put(page, b"note", data)
print(wrong)
"""


def test_processes_share_a_folder(folder):
    command = [sys.executable, "-c", WRITER, str(folder)]
    writers = [subprocess.Popen([*command, str(n)], stdout=subprocess.PIPE, stderr=subprocess.PIPE) for n in range(3)]
    outputs = [writer.communicate() for writer in writers]
    assert [(out.strip(), err) for out, err in outputs] == [(b"0", b"")] * 3
    assert LIMIT * 0.5 < used(folder) <= LIMIT * (1 + 3 / 16)
    assert all(path.suffix == ".page" for path in files(folder))


def test_nothing_is_logged_of_what_is_simply_not_there(store, caplog):
    with caplog.at_level(logging.DEBUG):
        assert not has(store, 1)
        assert list(store.notes(key(1), 0, 9)) == []
    assert not caplog.records


def test_folders_above_it_are_made(tmp_path):
    store = PageStore(tmp_path / "a" / "b" / "pages", IDENTITY, SIZES, most_bytes=LIMIT)
    put(store, 1)
    assert len(files(store.folder)) == 1
