"""llama.cpp in the same turns: the commands with a fake peer, and the peer itself with a fake llama_cpp."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import pytest

from outrider.bench.peer import LlamaCpp, PeerError

DECODE = ("bench", "decode", "demo", "--seconds", "0", "--against", "llama.cpp")

LLAMA_CPP = '''
"""Of llama_cpp what the peer uses: a vocabulary of 8, whose next token is the number of rows in the cache."""
import ctypes, time
from types import SimpleNamespace

__version__, LLAMA_LOAD_MODE_MMAP = "9.9", 1
logits, held, passes = (ctypes.c_float * 8)(), [0], []
llama_backend_init = lambda: None
llama_model_default_params = llama_context_default_params = lambda: SimpleNamespace(n_batch=4)
llama_model_load_from_file = lambda path, params: path.endswith(b".gguf")
llama_init_from_model = lambda model, params: params
llama_get_memory = llama_model_get_vocab = lambda of: of
llama_vocab_n_tokens = lambda vocab: 8

def llama_batch_init(rows, *_):
    zeros = {name: [0] * rows for name in ("token", "pos", "n_seq_id", "logits")}
    return SimpleNamespace(**zeros, seq_id=[[0] for _ in range(rows)])

def llama_memory_seq_rm(memory, sequence, begin, end):
    assert begin <= held[0]
    held[0] = begin
    return True

def llama_decode(context, batch):
    assert [batch.pos[i] for i in range(batch.n_tokens)] == list(range(held[0], held[0] + batch.n_tokens))
    if held[0] + batch.n_tokens > context.n_ctx:
        return 1
    held[0] += batch.n_tokens
    for i in range(8):
        logits[i] = float(i == held[0] % 8)
    time.sleep(0.001 * batch.n_tokens)
    return 0

llama_get_logits = lambda context: logits
llama_batch_free = llama_free = llama_model_free = lambda of: None
'''


class FakePeer:
    about: ClassVar[dict[str, str]] = {"name": "llama.cpp", "version": "0"}
    rooms: ClassVar[list[int]] = []

    def __init__(self, _model, _threads, context):
        self.rooms.append(context)

    def close(self):
        self.rooms.append(-1)

    def verify(self, rows, _context, repeat):
        return [0.02 * rows] * repeat

    def decode(self, _prompt, _tokens):
        return 50.0

    def prefill(self, tokens):
        return len(tokens) / 500


@pytest.fixture
def peer(monkeypatch):
    monkeypatch.setattr("outrider.bench.peer.LlamaCpp", FakePeer)
    monkeypatch.setitem(sys.modules, "llama_cpp", ModuleType("llama_cpp"))


def test_the_peer_is_measured_in_turns(fake, call, peer):  # noqa: ARG001
    against = ["--against", "llama.cpp", "--json"]
    verify = json.loads(call("bench", "verify", "demo", *against).out)["peer"]
    assert verify["name"] == "llama.cpp"
    assert verify["ratio"] == pytest.approx([1, 2, 4, 8, 16])
    prefill = json.loads(call("bench", "prefill", "demo", *against).out)
    assert (prefill["peer"]["tokens_per_second"], prefill["over_peer"]) == pytest.approx((500, 2))
    decode = json.loads(call(*DECODE, "--json", "--prompts", "1").out)
    assert decode["total"]["peer_tokens_per_second"] == pytest.approx(50)
    assert decode["total"]["over_peer"] == pytest.approx(260 / 50)
    assert "Against llama.cpp: 5.20 times" in call(*DECODE, "--prompts", "1").out
    assert FakePeer.rooms[-1] == -1  # it was ended


def test_the_peer_has_room_for_the_longest_prompt(fake, call, peer, tmp_path):  # noqa: ARG001
    (tmp_path / "long.jsonl").write_text(json.dumps({"prompt": "a" * 5000}) + '\n{"prompt": "b"}\n')
    call(*DECODE, "--suite", str(tmp_path / "long.jsonl"))
    assert FakePeer.rooms[-2] == 1 + 5000 + 64


def test_a_peer_that_is_not_installed_says_how_to_install_it(fake, call, monkeypatch):
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    ran = call("bench", "verify", "demo", "--against", "llama.cpp")
    assert ran.code == 2
    assert "pip install" in ran.err
    assert "Traceback" not in ran.err
    assert fake.made == []  # before a model is loaded


@pytest.fixture
def llama_cpp(monkeypatch, tmp_path):
    """The llama_cpp above in the place of the real one."""
    (tmp_path / "llama_cpp.py").write_text(LLAMA_CPP)
    monkeypatch.delitem(sys.modules, "llama_cpp", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("llama_cpp", None)


@pytest.mark.usefixtures("llama_cpp")
def test_passes_are_timed():
    running = LlamaCpp(Path("model.gguf"), threads=1, context=40)
    assert running.about == {"name": "llama.cpp", "version": "llama-cpp-python 9.9"}
    for rows, context in ((1, 9), (4, 9), (2, 17)):
        seconds = running.verify(rows, context, 3)
        assert len(seconds) == 3
        assert all(of >= 0.001 * rows for of in seconds)
    assert running.prefill(list(range(10))) >= 0.010
    assert 0 < running.decode([1, 2, 3], 5) <= 1000
    assert running.verify(1, 17, 1)
    running.close()


@pytest.mark.usefixtures("llama_cpp")
def test_what_cannot_be_done_is_reported():
    with pytest.raises(PeerError, match=r"llama\.cpp cannot load model\.bin"):
        LlamaCpp(Path("model.bin"), 1, 40)
    running = LlamaCpp(Path("model.gguf"), 1, 40)
    with pytest.raises(PeerError, match="status 1 at 4 rows"):
        running.prefill(list(range(100)))
