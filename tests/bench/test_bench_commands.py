"""`outrider bench` with a model that answers at once."""

from __future__ import annotations

import json

import pytest

TWO = ("--category", "prose", "--category", "code")
DECODE = ("bench", "decode", "demo", *TWO, "--seconds", "0")


def test_verify_json(fake, call):
    ran = call("bench", "verify", "demo", "--json", "--rounds", "2")
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    assert found["rows"] == [1, 2, 4, 8, 16]
    assert found["milliseconds"] == pytest.approx([11, 12, 14, 18, 26])
    assert found["ratio"] == pytest.approx([value / 11 for value in (11, 12, 14, 18, 26)])
    assert found["interval"] == [pytest.approx([ratio, ratio]) for ratio in found["ratio"]]
    assert found["limit_tokens_per_second"] == pytest.approx(100)
    assert found["predicted_milliseconds"] == pytest.approx([10] * 5)
    assert "peer" not in found
    # Round by round, and back again: a drift of the machine affects all row counts alike.
    assert fake.made[0].measure.calls == [1, 2, 4, 8, 16, 16, 8, 4, 2, 1]


def test_a_verify_ratio_is_paired_within_its_round(fake, call, monkeypatch):
    """A machine that gets slower from round to round changes no ratio."""
    slow = iter(range(1, 1000))

    def verify(_self, rows, _context, repeat):
        return [0.001 * rows * (1 + next(slow) // 5)] * repeat if rows > 1 else [0.001 * (1 + next(slow) // 5)] * repeat

    monkeypatch.setattr("fake_llm.FakeMeasure.verify", verify)
    found = json.loads(call("bench", "verify", "demo", "--json", "--rounds", "4").out)
    assert found["ratio"][:4] == pytest.approx([1, 2, 4, 8], rel=0.3)
    assert found["ratio"][0] == 1.0
    assert fake.made


def test_verify_table(fake, call):  # noqa: ARG001
    ran = call("bench", "verify", "demo")
    assert "c(M)/c(1)" in ran.out
    assert "26.00" in ran.out
    assert "10.00 (-62%)" in ran.out
    assert "at most 100.0 tok/s without drafting" in ran.out


def test_prefill_json(fake, call):  # noqa: ARG001
    found = json.loads(call("bench", "prefill", "demo", "--json", "--tokens", "100").out)
    assert found["tokens"] == 100
    assert found["tokens_per_second"] == pytest.approx(1000)


def test_drafts_and_sampling_are_as_requested(fake, call):
    ran = call(
        *(*DECODE, "--json", "--prompts", "1"),
        *("--drafter", "d.gguf", "--no-lookup", "--temperature", "0.7", "--top-k", "64", "--top-p", "0.95"),
    )
    assert [json.loads(ran.out)[name] for name in ("temperature", "top_k", "top_p")] == [0.7, 64, 0.95]
    (llm,) = fake.made
    assert llm.options["drafter"] == "d.gguf"
    assert llm.options["lookup"] is False
    assert {(params.temperature, params.top_k, params.top_p) for _, params in llm.asked} == {(0.7, 64, 0.95)}
    call(*DECODE, "--json", "--prompts", "1", "--drafter", "off")
    assert fake.made[1].options["drafter"] is None


def test_decode_json(fake, call):
    ran = call(*DECODE, "--json", "--prompts", "2")
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    assert list(found["categories"]) == ["prose", "code"]
    assert (found["suite"], found["form"]) == ("shipped", "base")
    for figures in (*found["categories"].values(), found["total"]):
        assert figures["plain_tokens_per_second"] == pytest.approx(100)
        assert figures["mtp_tokens_per_second"] == pytest.approx(260)
        assert figures["speedup"] == pytest.approx(2.6)
        assert figures["interval"] == pytest.approx([2.6, 2.6])
        assert figures["tokens_per_pass"] == pytest.approx(13 / 5)
        assert figures["acceptance_rate"] == pytest.approx(0.8)
        assert figures["identical"] is True
    assert found["draft_sources"] == ["lookup"]
    assert {name: of["prompts"] for name, of in found["categories"].items()} == {"prose": 2, "code": 2}
    assert sorted(pair["prompt"] for pair in found["pairs"]) == [0, 1, 2, 3]
    assert all((pair["plain"], pair["mtp"]) == pytest.approx((100, 260)) for pair in found["pairs"])
    # After one uncounted pair, each prompt in both ways, one right after the other; half of them begin with each.
    asked = fake.made[0].asked[2:]
    pairs = list(zip(asked[::2], asked[1::2], strict=True))
    assert all(first[0] == second[0] for first, second in pairs)
    orders = sorted((first[1].draft, second[1].draft) for first, second in pairs)
    assert orders == [("auto", "off")] * 2 + [("off", "auto")] * 2


def test_decode_table(fake, call):  # noqa: ARG001
    ran = call(*DECODE, "--prompts", "2")
    assert "2.60-2.60" in ran.out
    assert "geometric mean of 4 interleaved pairs over 4 prompts, with a bootstrap 95 % interval; greedily" in ran.out
    sampled = call(*DECODE, "--prompts", "2", "--temperature", "1")
    assert "over 4 prompts, with a bootstrap 95 % interval." in sampled.out


def test_tokens_that_differ_are_reported(fake, call):
    fake.unfaithful = True
    ran = call(*DECODE, "--json", "--prompts", "1")
    assert ran.code == 1
    assert json.loads(ran.out)["total"]["identical"] is False
    assert "changed the tokens of prompts in: prose, code. This is a bug" in ran.err
    assert "no" in call(*DECODE, "--prompts", "1").out


def test_an_unknown_peer_is_refused(fake, call):  # noqa: ARG001
    ran = call("bench", "verify", "demo", "--against", "ollama")
    assert ran.code == 2
    assert "llama.cpp" in ran.err
