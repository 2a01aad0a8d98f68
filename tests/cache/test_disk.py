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

from outrider.cache.disk import PageStore
from outrider.errors import UsageError

IDENTITY, SIZES = b"i" * 32, (1000, 300)
LIMIT = 64_000


def key(number):
    return hashlib.sha256(str(number).encode()).digest()


def page(number, group=0):
    return np.random.default_rng([number, group]).integers(0, 256, SIZES[group], np.uint8)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "pages"


@pytest.fixture
def store(folder):
    return PageStore(folder, LIMIT, IDENTITY, SIZES)


def files(folder):
    return sorted(folder.iterdir())


def used(folder):
    return sum(path.stat().st_size for path in folder.iterdir())


def test_what_is_put_is_what_is_found(store, folder):
    for group in (0, 1):
        store.put(key(1), group, page(1, group))
    for reader in (store, PageStore(folder, LIMIT, IDENTITY, SIZES)):
        for group in (0, 1):
            found = reader.get(key(1), group)
            assert found is not None
            assert found.dtype == np.uint8
            assert (found == page(1, group)).all()
        assert reader.get(key(2), 0) is None


def test_a_page_of_another_size_is_a_mistake(store):
    with pytest.raises(ValueError, match="a page of group 1 has 300 bytes, not 1000"):
        store.put(key(1), 1, page(1))


def test_only_the_owner_can_read(store, folder):
    store.put(key(1), 0, page(1))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [stat.S_IMODE(path.stat().st_mode) for path in files(folder)] == [0o600]


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777])
def test_a_folder_that_others_can_write_to_is_refused(folder, mode):
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(UsageError, match=r"other users can write to .* chmod 700 it"):
        PageStore(folder, LIMIT, IDENTITY, SIZES)


def test_a_folder_that_cannot_be_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UsageError, match="cannot be used"):
            PageStore(folder, LIMIT, IDENTITY, SIZES)


def test_a_limit_that_holds_too_little_is_refused(folder):
    with pytest.raises(UsageError, match=r"needs 18\.0 kB for this model, not 18\.0 kB"):
        PageStore(folder, 16 * 1128 - 1, IDENTITY, SIZES)
    PageStore(folder, 16 * 1128, IDENTITY, SIZES)


def other_identity(folder):
    return PageStore(folder, LIMIT, b"j" * 32, SIZES)


def other_format(folder):
    return PageStore(folder, LIMIT, IDENTITY, (2000, 600))


@pytest.mark.parametrize("other", [other_identity, other_format])
def test_models_share_a_folder_and_no_page(store, folder, other, caplog):
    store.put(key(1), 0, page(1))
    another = other(folder)
    assert another.get(key(1), 0) is None
    another.put(key(1), 1, another_page := np.full(another._page_bytes[1], 7, np.uint8))
    found = another.get(key(1), 1)
    assert found is not None
    assert (found == another_page).all()
    assert store.get(key(1), 1) is None
    assert (store.get(key(1), 0) == page(1)).all()
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
@given(damage=st.sampled_from(DAMAGE), share=st.floats(0, 1, exclude_max=True))
def test_a_damaged_page_is_removed_with_one_line(tmp_path_factory, damage, share, caplog):
    folder = tmp_path_factory.mktemp("damage") / "pages"
    store = PageStore(folder, LIMIT, IDENTITY, SIZES)
    store.put(key(1), 0, page(1))
    (path,) = files(folder)
    store.put(key(2), 0, page(2))
    before = path.read_bytes()
    damage(path, share)
    changed = not path.is_file() or path.is_symlink() or path.read_bytes() != before
    caplog.clear()
    found = store.get(key(1), 0)
    if not changed:  # eight zeros that were zeros
        assert (found == page(1)).all()
        return
    assert found is None
    assert [record.message for record in caplog.records] == [
        f"{path} is no page of this cache, or damaged: it is removed"
    ]
    assert not path.is_symlink()
    assert not path.exists()
    assert store.get(key(1), 0) is None
    assert len(caplog.records) == 1
    assert (store.get(key(2), 0) == page(2)).all()
    store.put(key(1), 0, page(1))
    assert (store.get(key(1), 0) == page(1)).all()


def test_files_of_others_stay(store, folder):
    store.put(key(1), 0, page(1))
    others = [folder / name for name in ("notes.txt", "0" * 64, f"{'0' * 63}.page")]
    for path in others:
        path.write_bytes(bytes(LIMIT))
    for number in range(100):
        store.put(key(number), 0, page(number))
    assert all(path.stat().st_size == LIMIT for path in others)


def test_the_least_recently_used_leave_first(store, folder):
    for number in range(40):
        store.put(key(number), 0, page(number))
    store.touch([(key(0), 0), (key(1), 0)])
    for number in range(40, 80):
        store.put(key(number), 0, page(number))
        assert used(folder) <= LIMIT
    kept = [number for number in range(80) if store.get(key(number), 0) is not None]
    assert kept[:2] == [0, 1]
    assert kept[2:] == list(range(82 - len(kept), 80))
    assert used(folder) > LIMIT * 0.8


def test_of_pages_used_together_the_first_is_the_newest(store):
    for number in range(40):
        store.put(key(number), 0, page(number))
    store.touch([(key(number), 0) for number in range(40)])
    for number in range(40, 60):
        store.put(key(number), 0, page(number))
    kept = [number for number in range(40) if store.get(key(number), 0) is not None]
    assert kept == list(range(len(kept)))
    assert 10 < len(kept) < 40


def test_a_lower_limit_holds_from_the_start(store, folder):
    for number in range(50):
        store.put(key(number), 0, page(number))
    PageStore(folder, LIMIT // 2, IDENTITY, SIZES)
    assert LIMIT * 0.4 < used(folder) <= LIMIT // 2


def test_what_a_killed_process_left_is_removed_in_time(store, folder):
    store.put(key(1), 0, page(1))
    (path,) = files(folder)
    fresh, left = path.with_name(f"{path.name}.0a1b2c3d.partial"), path.with_name(f"{path.name}.00000000.partial")
    for partial in (fresh, left):
        partial.write_bytes(b"x")
    os.utime(left, (0, time.time() - 4000))
    PageStore(folder, LIMIT, IDENTITY, SIZES)
    assert files(folder) == [path, fresh]


def test_a_full_disk_is_one_line(store, folder, monkeypatch, caplog):
    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", full)
        for number in range(3):
            store.put(key(number), 0, page(number))
    assert [record.message for record in caplog.records] == [
        f"pages cannot be written to {folder} (No space left on device)"
    ]
    assert files(folder) == []
    store.put(key(1), 0, page(1))
    assert (store.get(key(1), 0) == page(1)).all()


def test_a_folder_that_vanishes_is_no_error(store, folder, caplog):
    store.put(key(1), 0, page(1))
    for path in files(folder):
        path.unlink()
    folder.rmdir()
    assert store.get(key(1), 0) is None
    store.touch([(key(1), 0)])
    for number in range(100):
        store.put(key(number), 0, page(number))
    assert len(caplog.records) == 1


WRITER = """
import hashlib, sys
import numpy as np
from pathlib import Path
from outrider.cache.disk import PageStore

store = PageStore(Path(sys.argv[1]), 64_000, b"i" * 32, (1000, 300))
wrong = 0
for turn in range(300):
    number = (turn * 7 + int(sys.argv[2])) % 90
    key = hashlib.sha256(str(number).encode()).digest()
    data = np.random.default_rng([number, 0]).integers(0, 256, 1000, np.uint8)
    found = store.get(key, 0)
    wrong += found is not None and not (found == data).all()
    store.put(key, 0, data)
print(wrong)
"""


def test_processes_share_a_folder(folder):
    command = [sys.executable, "-c", WRITER, str(folder)]
    writers = [subprocess.Popen([*command, str(n)], stdout=subprocess.PIPE, stderr=subprocess.PIPE) for n in range(3)]
    outputs = [writer.communicate() for writer in writers]
    assert [(out.strip(), err) for out, err in outputs] == [(b"0", b"")] * 3
    assert used(folder) <= LIMIT * (1 + 3 / 16)
    assert all(path.suffix == ".page" for path in files(folder))
    store = PageStore(folder, LIMIT, IDENTITY, SIZES)
    found = [number for number in range(90) if store.get(key(number), 0) is not None]
    assert len(found) > 40


def test_nothing_is_logged_of_what_is_simply_not_there(store, caplog):
    with caplog.at_level(logging.DEBUG):
        assert store.get(key(1), 0) is None
        store.touch([(key(1), 0)])
    assert not caplog.records


def test_folders_above_it_are_made(tmp_path):
    store = PageStore(tmp_path / "a" / "b" / "pages", LIMIT, IDENTITY, SIZES)
    store.put(key(1), 0, page(1))
    assert isinstance(store.folder, Path)
    assert len(files(store.folder)) == 1
