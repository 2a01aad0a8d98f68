"""`outrider plan`: shapes and hardware in, a verdict out; nothing is loaded."""

from __future__ import annotations

import json

import pytest

from outrider.cli.plan_table import verdict


def test_a_published_size_on_a_named_accelerator(call):
    ran = call("plan", "E2B", "--hardware", "H100", "--json")
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    assert found["rows"] == [1, 2, 4, 8, 16]
    assert found["ratio"][0] == 1.0
    assert found["ratio"] == sorted(found["ratio"])
    assert found["hardware"]["bytes_per_second"] == 3350e9
    assert found["bytes_per_token"] == pytest.approx(1.28e9, rel=0.01)  # of 2.3 billion weights in 4.5 bits
    row = next(of for of in found["by_acceptance"] if of["acceptance"] == 0.7)
    assert row["best_speedup"] >= max(row["speedup"])
    assert found["by_requests"][0]["speedup"] == pytest.approx(row["best_speedup"])


def test_experts_make_further_rows_cost_more(call):
    dense, mixture = (
        json.loads(call("plan", size, "--bandwidth", "60", "--arithmetic", "1600", "--json").out)
        for size in ("E4B", "26B-A4B")
    )
    assert dense["ratio"][2] < 1.1
    assert mixture["ratio"][2] > 1.7
    assert mixture["by_requests"][0]["speedup"] < dense["by_requests"][0]["speedup"]


def test_more_bits_take_longer(call):
    plain = [
        json.loads(call("plan", "E2B", "--hardware", "l4", "--weights", weights, "--json").out)[
            "plain_tokens_per_second"
        ]
        for weights in ("q4_0", "q8_0", "bf16")
    ]
    assert plain == sorted(plain, reverse=True)


def test_a_checkpoint_here(tiny, call):
    path = str(tiny("gemma4-e2b").folder)
    ran = call("plan", path, "--context", "100", "--drafter", "off")
    assert ran.code == 0, ran.err
    for said in (
        "this machine with",
        "tok/s without drafting",
        "c(M)/c(1)",
        "requests at once",
        "lookup alone",
        "Lookup (there is no MTP drafter)",
    ):
        assert said in ran.out


def test_each_figure_of_some_hardware_can_be_replaced(call):
    h100 = ("plan", "12B", "--hardware", "h100", "--json")
    own, memory, arithmetic = (
        json.loads(call(*h100, *more).out)["hardware"] for more in ((), ("--bandwidth", "2000"), ("--arithmetic", "9"))
    )
    assert (memory["bytes_per_second"], arithmetic["multiply_adds_per_second"]) == (2e12, 9e9)
    assert memory["name"] == "h100, but 2000 GB/s"
    assert own["multiply_adds_per_second"] == memory["multiply_adds_per_second"]
    assert own["bytes_per_second"] == arithmetic["bytes_per_second"]


def test_more_cores_than_are_here_are_reckoned_and_labelled_so(call, monkeypatch):
    from outrider.roofline import measured
    from outrider.roofline.hardware import Hardware

    monkeypatch.setattr(measured, "measure_hardware", lambda _, threads: Hardware(f"{threads} threads", 40e9, 500e9))
    plan = ("plan", "E2B", "--threads", "2", "--json")
    own, more, with_memory = (
        json.loads(call(*plan, *options).out)["hardware"]
        for options in (("--cores", "2"), ("--cores", "16"), ("--cores", "16", "--bandwidth", "200"))
    )
    assert own["name"] == "2 threads"
    assert more["name"] == "2 threads, reckoned for 16 cores: arithmetic of 16, memory as measured"
    assert (more["bytes_per_second"], more["multiply_adds_per_second"]) == (40e9, 4000e9)
    assert with_memory["bytes_per_second"] == 200e9
    assert with_memory["name"] == f"{more['name']}, but 200 GB/s"
    refused = call("plan", "E2B", "--threads", "2", "--cores", "1")
    assert refused.code == 2
    assert "use --threads 1" in refused.err
    assert "--cores scales" in call("plan", "E2B", "--hardware", "h100", "--cores", "4").err


def test_both_figures_describe_a_processor_and_nothing_is_measured(call, monkeypatch):
    from outrider.roofline import measured

    monkeypatch.setattr(measured, "measure_hardware", None)
    ran = call("plan", "12B", "--bandwidth", "80", "--arithmetic", "1200")
    assert "a processor of these figures: memory 80 GB/s, 1,200 G multiply-adds/s" in ran.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("E2B", "--hardware", "abacus"), "no hardware called 'abacus'"),
        (
            ("E2B", "--bandwidth", "60", "--arithmetic", "1600", "--threads", "2"),
            "--threads is for what is measured here",
        ),
        (("E2B", "--drafter", "off"), "--drafter needs a checkpoint"),
        (("E2B", "--context", "131072"), "at most 131071"),
        (("E2B", "--bandwidth", "inf"), "--bandwidth must be a finite number"),
        (("E2B", "--hardware", "h100", "--threads", "2"), "--threads is for what is measured here"),
        (("E2B", "--acceptance", "nan"), "--acceptance"),
        (("nowhere.gguf",), "nowhere.gguf"),
        (("E2C",), "The published sizes are E2B, E4B, 12B, 26B-A4B, 31B."),
        (("nowhere.gguf", "--weights", "q4_0"), "--weights is for published sizes"),
    ],
)
def test_what_cannot_be_planned_is_said_before_anything_is_measured(call, monkeypatch, arguments, said):
    from outrider.roofline import measured

    monkeypatch.setattr(measured, "measure_hardware", None)
    ran = call("plan", *arguments)
    assert ran.code == 2
    assert said in ran.err


def test_a_drafter_is_no_target(tiny, call):
    ran = call("plan", str(tiny("assistant-centroids").gguf))
    assert ran.code == 2
    assert "is a drafter" in ran.err


def facts(speedups, least=0.2, acceptance=0.7):
    by_requests = [{"requests": 2**i, "drafted": 3, "speedup": s} for i, s in enumerate(speedups)]
    paying = [of["requests"] for of in by_requests if of["speedup"] >= 1.05]
    return {
        "acceptance": acceptance,
        "has_drafter": True,
        "by_requests": by_requests,
        "worthwhile_requests": paying,
        "least_acceptance": least,
    }


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        (
            facts([2.0, 1.5, 1.0]),
            ["drafts of 3 make it 2.0 times", "below 20%", "pays at 1, 2 requests at once, not at 4."],
        ),
        (facts([2.0, 1.9]), ["pays at 1, 2 requests at once, every load tried."]),
        (facts([1.0, 1.0], None), ["does not pay here", "at any load"]),
        (
            facts([1.02, 1.1, 1.2, 1.0], 0.75),
            ["not pay for one request", "at a rate below 75%", "pays at 2, 4 requests at once, not at 1, 8."],
        ),
    ],
)
def test_the_verdict_says_where_it_pays(plan, said):
    for words in said:
        assert words in verdict(plan)


MACHINE = ("plan", "E2B", "--bandwidth", "60", "--arithmetic", "600", "--json")


def of_clients(call, *options):
    ran = call(*MACHINE, *options)
    assert ran.code == 0, ran.err
    return json.loads(ran.out)["clients"]


def test_the_least_replicas_that_serve_so_many_clients(call):
    found = of_clients(call, "--clients", "200")
    for arm in ("plain", "drafting"):
        replicas = found[arm]["replicas"]
        assert found[arm]["in_time"]
        assert found[arm]["served"]["first_token"]["most"] <= 5
        assert found[arm]["served"]["next_token"]["most"] <= 0.2
        fewer = of_clients(call, "--clients", "200", "--replicas", str(replicas - 1))
        assert not fewer[arm]["in_time"]
        assert fewer[arm]["clients"] == 200
    assert found["drafting"]["replicas"] < found["plain"]["replicas"]


def test_the_most_clients_that_so_many_replicas_serve(call):
    found = of_clients(call, "--replicas", "10", "--next-token", "0.04", "--first-token", "30")
    for arm in ("plain", "drafting"):
        assert found[arm]["clients"] % 10 == 0
        more = of_clients(
            call,
            "--replicas",
            "10",
            "--clients",
            str(found[arm]["clients"] + 10),
            "--next-token",
            "0.04",
            "--first-token",
            "30",
        )
        assert found[arm]["in_time"]
        assert not more[arm]["in_time"]


def test_a_price_is_that_of_all_machines_over_all_tokens(call):
    found = of_clients(call, "--clients", "30", "--replicas", "7", "--price-per-hour", "0.5")
    row = found["plain"]
    assert row["price_per_million"] == pytest.approx(7 * 0.5 / (row["tokens_per_second"] * 3600) * 1e6)
    assert of_clients(call, "--clients", "30")["plain"]["price_per_million"] is None


def test_one_client_alone_may_wait_too_long(call):
    ran = call(*MACHINE[:-1], "--clients", "3", "--first-token", "0.1")
    assert "3 replicas for 3 clients: too slow" in " ".join(ran.out.split())
    ran = call(*MACHINE[:-1], "--clients", "3000", "--replicas", "3")
    assert "3 replicas for 3,000 clients: too few" in " ".join(ran.out.split())


def test_a_price_needs_clients(call):
    assert "give --clients or --replicas" in call(*MACHINE, "--price-per-hour", "1").err
