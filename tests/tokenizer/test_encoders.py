"""Models of one process with equal vocabularies share what is built of them, and nobody else does."""

from __future__ import annotations

import gc
import shutil
import weakref

from server.served_checkpoint import save_served

from outrider.loading import open_target
from outrider.tokenizer import open_tokenizer


def test_equal_vocabularies_are_built_once(tmp_path, tiny):
    folder, _ = save_served(tmp_path / "one")
    other, _ = save_served(tmp_path / "other", "gemma4-dense")
    first, second = (open_tokenizer(path / "tokenizer.json") for path in (folder, other))
    assert first.encoders is second.encoders
    assert open_tokenizer(folder / "tokenizer.json", written="abc").encoders is not first.encoders
    tables = open_target(tiny("gemma3").gguf)[2]
    assert open_tokenizer(tables).encoders is not first.encoders


def test_what_one_of_them_lacks_is_not_added_to_the_others(tmp_path):
    folder, _ = save_served(tmp_path)
    first, second = (open_tokenizer(folder / "tokenizer.json") for _ in range(2))
    first.pad(10_000)
    assert first.piece(9_999) == b""
    assert second.encode("abc de", add_bos=False) == first.encode("abc de", add_bos=False)
    assert 9_999 not in second.encoders.texts


def test_they_go_with_the_last_model(tmp_path):
    folder, _ = save_served(tmp_path)
    shutil.copy(folder / "tokenizer.json", tmp_path / "same.json")
    first, second = open_tokenizer(folder / "tokenizer.json"), open_tokenizer(tmp_path / "same.json")
    built = weakref.ref(first.encoders)
    del first
    assert built() is second.encoders
    del second
    gc.collect()
    assert built() is None
