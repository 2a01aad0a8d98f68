"""What is stored of responses, for whom, and for how long."""

from __future__ import annotations

import os
import stat
import threading

import pytest

from outrider.errors import UsageError
from outrider.server.keys import ApiKeys
from outrider.server.responses.shapes import item_id, new_id
from outrider.server.responses.store import NotStoredError, ResponseStore, Stored, TooLargeError

KEYS = ApiKeys(["alice", "bob"])
ALICE, BOB = KEYS.scope(0, ""), KEYS.scope(1, "")


def stored(text="x", previous=None):
    response = new_id()
    said = {"id": item_id("msg", response, 0), "type": "message", "role": "assistant", "content": text}
    asked = {"id": item_id("item", response, "in0"), "type": "message", "role": "user", "content": f"{text}?"}
    return Stored({"id": response, "output": [said]}, [asked], previous)


@pytest.fixture(params=["memory", "folder"])
def make(request, tmp_path):
    folder = tmp_path / "responses" if request.param == "folder" else None
    return lambda **bounds: ResponseStore(folder, **bounds)


def test_what_is_stored_is_found_by_its_scope_alone(make):
    store, kept = make(), stored("\ud83d é")
    store.put(ALICE, kept)
    assert store.get(ALICE, kept.response["id"]) == kept
    strangers = [BOB, ApiKeys().scope(None, ""), KEYS.scope(0, "salt"), KEYS.scope(0, "0"), b""]
    for scope in strangers:
        for refused in (store.get, store.delete, store.conversation):
            with pytest.raises(NotStoredError):
                refused(scope, kept.response["id"])
        with pytest.raises(NotStoredError):
            store.resolved(scope, [{"type": "item_reference", "id": kept.response["output"][0]["id"]}])
    store.delete(ALICE, kept.response["id"])
    with pytest.raises(NotStoredError):
        store.get(ALICE, kept.response["id"])


def test_scopes_are_distinct_and_belong_to_the_key_itself():
    salts = ["", "0", "1", "alice", "\ud800"]
    scopes = {keys.scope(key, salt) for keys in (KEYS,) for key in (None, 0, 1) for salt in salts}
    assert len(scopes) == 15
    assert ApiKeys(["carol", "bob", "alice"]).scope(2, "s") == KEYS.scope(0, "s")


def test_a_conversation_is_read_from_its_beginning(make):
    store, turns = make(), []
    for number in range(3):
        turns.append(stored(str(number), turns[-1].response["id"] if turns else None))
        store.put(ALICE, turns[-1])
    items = store.conversation(ALICE, turns[-1].response["id"])
    assert [item["content"] for item in items] == ["0?", "0", "1?", "1", "2?", "2"]
    assert store.conversation(ALICE, None) == []
    reference = {"type": "item_reference", "id": items[3]["id"]}
    assert store.resolved(ALICE, [{"type": "message"}, reference]) == [{"type": "message"}, items[3]]
    for unknown in ("msg_1", item_id("msg", turns[0].response["id"], 7), "", "a_b_c_d"):
        with pytest.raises(NotStoredError):
            store.resolved(ALICE, [reference | {"id": unknown}])
    store.delete(ALICE, turns[0].response["id"])
    with pytest.raises(NotStoredError, match=turns[0].response["id"]):
        store.conversation(ALICE, turns[-1].response["id"])


def test_the_least_recently_used_leave_first(make):
    store = make(most=3)
    kept = [stored(str(number)) for number in range(4)]
    for each in kept[:3]:
        store.put(ALICE, each)
    store.get(ALICE, kept[0].response["id"])
    store.put(BOB, kept[3])
    with pytest.raises(NotStoredError):
        store.get(ALICE, kept[1].response["id"])
    for scope, each in ((ALICE, kept[0]), (ALICE, kept[2]), (BOB, kept[3])):
        assert store.get(scope, each.response["id"]) == each


def test_a_conversation_in_use_keeps_its_beginning(make):
    store, first = make(most=3), stored("0")
    store.put(ALICE, first)
    last = first
    for number in range(2):
        last = stored(str(number), last.response["id"])
        store.put(ALICE, last)
    store.conversation(ALICE, last.response["id"])
    store.put(BOB, stored())
    assert store.get(ALICE, first.response["id"]) == first


def test_bytes_are_bounded(make):
    store = make(most_bytes=10_000)
    kept = [stored("x" * 1000) for _ in range(50)]
    for each in kept:
        store.put(ALICE, each)
        assert store._bytes <= 10_000
        assert store._bytes == sum(store._sizes.values())
    assert len(store._sizes) == 4
    store.put(ALICE, large := stored("x" * 10_000))
    with pytest.raises(NotStoredError):
        store.get(ALICE, large.response["id"])
    assert store.get(ALICE, kept[-1].response["id"]) == kept[-1], "nothing leaves for what does not fit"


def test_a_conversation_that_is_too_large_is_not_read_to_its_end(monkeypatch):
    monkeypatch.setattr("outrider.server.responses.store.MAX_CONVERSATION_BYTES", 2500)
    store, last = ResponseStore(), None
    for _ in range(3):
        last = stored("x" * 400, last.response["id"] if last else None)
        store.put(ALICE, last)
    with pytest.raises(TooLargeError):
        store.conversation(ALICE, last.response["id"])
    assert len(store.conversation(ALICE, last.previous)) == 4


def test_what_nests_too_deeply_is_not_stored(caplog):
    store, kept = ResponseStore(), stored()
    nested = []
    for _ in range(100_000):
        nested = [nested]
    store.put(ALICE, Stored(kept.response, [{"deep": nested}], None))
    assert "nests too deeply" in caplog.text
    with pytest.raises(NotStoredError):
        store.get(ALICE, kept.response["id"])


def test_threads_share_a_store(make):
    store = make(most=20)

    def work():
        for _ in range(50):
            each = stored()
            store.put(ALICE, each)
            store.get(ALICE, each.response["id"])
            store.delete(ALICE, each.response["id"])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (store._bytes, len(store._sizes)) == (0, 0)


def test_a_folder_outlives_the_server(tmp_path):
    folder, kept = tmp_path / "a" / "responses", [stored(str(number)) for number in range(3)]
    store = ResponseStore(folder)
    for each in kept:
        store.put(ALICE, each)
    for number in range(3):  # file systems may have coarse times
        os.utime(store._entries._path(list(store._sizes)[number]), (number, number))
    store.get(ALICE, kept[0].response["id"])
    (folder / "notes.json").write_text("mine")
    (folder / f"{'0' * 64}.json.ab12.partial").write_text("cut")
    (folder / "mine.partial").write_text("mine")
    again = ResponseStore(folder, most=3)
    assert {path.name for path in folder.iterdir()} - {f"{name}.json" for name in again._sizes} == {
        "notes.json",
        "mine.partial",
    }
    with pytest.raises(NotStoredError):
        again.get(ALICE, kept[1].response["id"])
    assert again.get(ALICE, kept[0].response["id"]) == kept[0]
    with pytest.raises(NotStoredError):
        again.get(BOB, kept[0].response["id"])


def test_only_the_user_of_the_server_can_read_a_folder(tmp_path):
    folder = tmp_path / "responses"
    ResponseStore(folder).put(ALICE, stored())
    (file,) = folder.iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "alice" not in file.name + file.read_text()


def test_a_damaged_file_is_no_response(tmp_path, caplog):
    store, kept = ResponseStore(tmp_path), stored()
    store.put(ALICE, kept)
    (file,) = tmp_path.iterdir()
    for content in (b"", b"{", b"[]", b'{"a": 1}', b"\xff"):
        file.write_bytes(content)
        with pytest.raises(NotStoredError):
            store.get(ALICE, kept.response["id"])
    file.unlink()
    with pytest.raises(NotStoredError):
        store.get(ALICE, kept.response["id"])
    assert "is damaged" in caplog.text


def test_a_full_disk_costs_the_response_alone(tmp_path, monkeypatch, caplog):
    store, kept = ResponseStore(tmp_path), stored()

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.write_bytes", full)
        store.put(ALICE, kept)
    assert "cannot be stored" in caplog.text
    assert not list(tmp_path.iterdir())
    store.put(ALICE, kept)
    assert store.get(ALICE, kept.response["id"]) == kept


def test_a_folder_that_cannot_be_used_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"--response-store .* cannot be used"):
        ResponseStore(tmp_path / "file")
    with pytest.raises(UsageError, match=r"--response-store .* cannot be used"):
        ResponseStore(tmp_path / "file" / "folder")
