"""`outrider bench` with a model that answers at once."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import ClassVar

import pytest

TWO = ("--category", "prose", "--category", "code")
DECODE = ("bench", "decode", "demo", *TWO)


def test_verify_json(fake, call):
    ran = call("bench", "verify", "demo", "--json", "--rounds", "2")
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    assert found["rows"] == [1, 2, 4, 8, 16]
    assert found["milliseconds"] == pytest.approx([11, 12, 14, 18, 26])
    assert found["ratio"] == pytest.approx([value / 11 for value in (11, 12, 14, 18, 26)])
    assert found["limit_tokens_per_second"] == pytest.approx(100)
    assert found["predicted_milliseconds"] == pytest.approx([12] * 5)
    assert "peer" not in found
    # Round by round, and back again: a drift of the machine hits all row counts alike. Between them gauges, over a row;
    # at the beginning and the end, where no passes are, the machine's own figures.
    calls = fake.made[0].measure.calls
    assert calls[2:-1:2] == [1, 2, 4, 8, 16, 16, 8, 4, 2, 1]
    assert calls[:2] + calls[3:-1:2] + calls[-1:] == [1] * 13


def test_verify_table(fake, call):  # noqa: ARG001
    ran = call("bench", "verify", "demo")
    assert "c(M)/c(1)" in ran.out
    assert "26.00 ms" in ran.out
    assert "12.00 ms (-54%)" in ran.out


def test_prefill_json(fake, call):  # noqa: ARG001
    found = json.loads(call("bench", "prefill", "demo", "--json", "--tokens", "100").out)
    assert found["tokens"] == 100
    assert found["tokens_per_second"] == pytest.approx(1000)


def test_drafts_and_sampling_are_as_asked(fake, call):
    ran = call(
        *(*DECODE, "--json", "--prompts", "1", "--rounds", "1"),
        *("--drafter", "d.gguf", "--no-lookup", "--temperature", "0.7", "--top-k", "64", "--top-p", "0.95"),
    )
    assert [json.loads(ran.out)[name] for name in ("temperature", "top_k", "top_p")] == [0.7, 64, 0.95]
    (llm,) = fake.made
    assert llm.options["drafter"] == "d.gguf"
    assert llm.options["lookup"] is False
    assert {(params.temperature, params.top_k, params.top_p) for _, params in llm.asked} == {(0.7, 64, 0.95)}
    call(*DECODE, "--json", "--prompts", "1", "--rounds", "1", "--drafter", "off")
    assert fake.made[1].options["drafter"] is None


def test_decode_json(fake, call):
    ran = call(*DECODE, "--json", "--prompts", "2", "--rounds", "1")
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    assert list(found["categories"]) == ["prose", "code"]
    assert (found["suite"], found["form"], found["groups"]) == ("shipped", "base", {})
    for figures in (*found["categories"].values(), found["total"]):
        assert figures["plain_tokens_per_second"] == pytest.approx(100)
        assert figures["mtp_tokens_per_second"] == pytest.approx(260)
        assert figures["speedup"] == pytest.approx(2.6)
        assert figures["tokens_per_pass"] == pytest.approx(13 / 5)
        assert figures["acceptance_rate"] == pytest.approx(0.8)
        assert figures["identical"] is True
    assert found["draft_sources"] == ["lookup"]
    assert {name: of["prompts"] for name, of in found["categories"].items()} == {"prose": 2, "code": 2}
    assert found["total"]["prompts"] == 4
    assert "4 prompts of 2 categories, each decoded 1 time in 2 ways (plain, drafted): about 1 second" in ran.err
    (llm,) = fake.made
    # After what the estimate takes, each prompt in both ways, one after the other; half of them begin with each.
    asked = llm.asked[-8:]
    pairs = [(first, second) for first, second in zip(asked[::2], asked[1::2], strict=True)]
    assert all(first[0] == second[0] for first, second in pairs)
    assert (
        sorted((first[1].draft, second[1].draft) for first, second in pairs)
        == [("auto", "off")] * 2 + [("off", "auto")] * 2
    )


def test_order_turns_around_from_round_to_round(fake, call):
    call(*DECODE, "--json", "--prompts", "2", "--rounds", "2")
    asked = fake.made[0].asked[-16:]
    prompts = [prompt for prompt, _ in asked]
    for prompt in prompts[:8]:
        begins = [params.draft for other, params in asked[::2] if other == prompt]
        assert sorted(begins) == ["auto", "off"]
    assert prompts[:8] != prompts[8:]  # another order of the prompts too


def test_prompts_are_computed_in_the_first_round_alone(fake, call):
    call(*DECODE, "--json", "--prompts", "2", "--rounds", "3")
    salts, asked = set(), []
    for _, params in fake.made[0].asked:  # under a new salt there is nothing to reuse
        asked.append(params.cache_prompt and params.cache_salt in salts)
        salts |= {params.cache_salt} if params.cache_prompt else set()
    assert asked[-24:] == [False] * 8 + [True] * 16
    assert asked[:-24].count(True) == 3  # in the estimate, how long that takes, in both ways, once it is kept


def test_how_sure_a_speedup_is_takes_two_rounds(fake, call):  # noqa: ARG001
    assert "Measured again" in call(*DECODE, "--prompts", "2", "--rounds", "2").out
    assert "Measured again" not in call(*DECODE, "--prompts", "2", "--rounds", "1").out


def test_every_pair_is_told_in_the_order_of_its_time(fake, call):  # noqa: ARG001
    found = json.loads(call(*DECODE, "--json", "--prompts", "2", "--rounds", "3").out)
    assert found["rounds"] == 3
    pairs = found["pairs"]
    assert [sorted(pair["prompt"] for pair in pairs[i : i + 4]) for i in (0, 4, 8)] == [[0, 1, 2, 3]] * 3
    for pair in pairs:
        assert pair["as_timed"] == pytest.approx({"plain": 100, "mtp": 260})
        assert pair["at_usual_pace"] == pytest.approx(pair["as_timed"])  # each of its passes takes as long as any other
        assert pair["gauge_seconds"] == {"plain": [0.011, 0.011], "drafted": [0.011, 0.011]}


def test_tokens_that_differ_are_reported(fake, call):
    fake.unfaithful = True
    ran = call(*DECODE, "--json", "--prompts", "1", "--rounds", "1")
    assert ran.code == 1
    assert json.loads(ran.out)["total"]["identical"] is False
    assert "changed the tokens of prompts in: prose, code. This is a bug" in ran.err
    assert "no" in call(*DECODE, "--prompts", "1", "--rounds", "1").out


class FakePeer:
    version = "0"
    rooms: ClassVar[list[int]] = []

    def __init__(self, *_, context=4096):
        self.rooms.append(context)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def verify(self, rows, _context, repeat):
        return [0.02 * rows] * repeat

    def decode(self, _prompt, tokens):
        return SimpleNamespace(tokens_per_second=50.0, token_ids=[0] * tokens)

    def prefill(self, tokens):
        return SimpleNamespace(seconds=[len(tokens) / 500])


def test_the_peer_is_measured_in_turns(fake, call, monkeypatch):  # noqa: ARG001
    monkeypatch.setattr("outrider.bench.peer.LlamaCpp", FakePeer)
    against = ["--against", "llama.cpp", "--json"]
    verify = json.loads(call("bench", "verify", "demo", *against).out)["peer"]
    assert verify["name"] == "llama.cpp"
    assert verify["ratio"] == pytest.approx([1, 2, 4, 8, 16])
    assert json.loads(call("bench", "prefill", "demo", *against).out)["peer"]["tokens_per_second"] == 500
    decode = json.loads(call(*DECODE, *against, "--prompts", "1").out)
    assert decode["total"]["peer_tokens_per_second"] == 50
    assert "llama.cpp" in call(*DECODE, "--against", "llama.cpp", "--prompts", "1").out


def test_the_peer_has_room_for_the_longest_prompt(fake, call, monkeypatch, tmp_path):  # noqa: ARG001
    monkeypatch.setattr("outrider.bench.peer.LlamaCpp", FakePeer)
    (tmp_path / "long.jsonl").write_text(json.dumps({"prompt": "a" * 5000}) + '\n{"prompt": "b"}\n')
    call("bench", "decode", "demo", "--suite", str(tmp_path / "long.jsonl"), "--against", "llama.cpp")
    assert FakePeer.rooms[-1] == 1 + 5000 + 64


def test_a_peer_that_is_not_installed_says_how_to_install_it(fake, call, tmp_path):  # noqa: ARG001
    ran = call("bench", "verify", "demo", "--against", "llama.cpp", "--peer-python", str(tmp_path / "python"))
    assert ran.code == 2
    assert "pip install" in ran.err
    assert "Traceback" not in ran.err


def test_an_unknown_peer_is_refused(fake, call):  # noqa: ARG001
    ran = call("bench", "verify", "demo", "--against", "ollama")
    assert ran.code == 2
    assert "llama.cpp" in ran.err
