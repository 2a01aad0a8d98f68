"""The commands as a person runs them, on the demo model."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow


def outrider(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    program = "from outrider.cli import main; main()"
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=300, check=False)


def test_drafting_changes_only_the_time():
    copy = "one two three four five six seven\none two three four five six seven\none two"
    answers = []
    for draft in ("off", "auto", "5"):
        ran = outrider("run", "demo", "-", "--draft", draft, "--max-tokens", "32", "--json", stdin=copy)
        assert ran.returncode == 0, ran.stderr
        answers.append(json.loads(ran.stdout))
    assert answers[0]["token_ids"] == answers[1]["token_ids"] == answers[2]["token_ids"]
    assert answers[0]["stats"]["drafted"] == 0
    assert answers[2]["stats"]["accepted"] > 0
    assert answers[2]["stats"]["target_passes"] < answers[0]["stats"]["target_passes"]


def test_text_streams_and_figures_follow():
    ran = outrider("run", "demo", "The capital of France is", "--max-tokens", "8")
    assert ran.returncode == 0
    assert ran.stdout.endswith("\n")
    assert "tok/s" in ran.stderr


def test_a_reader_that_leaves_is_no_error():
    program = "from outrider.cli import main; main()"
    command = [sys.executable, "-c", program, "run", "demo", "Once", "--max-tokens", "200"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(1)
    process.stdout.close()
    said = process.stderr.read()
    assert process.wait(60) == 1
    assert all("; drafter: " in line for line in said.splitlines())


def test_bench_decode_is_identical():
    kinds = [part for name in ("prose", "code", "copy-edit") for part in ("--category", name)]
    ran = outrider(
        *("bench", "decode", "demo", *kinds, "--json", "--prompts", "2", "--seconds", "1", "--max-tokens", "16")
    )
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["total"]["identical"] is True


def test_bench_verify_prints_the_curve():
    found = json.loads(outrider("bench", "verify", "demo", "--json", "--rounds", "1").stdout)
    assert found["rows"] == [1, 2, 4, 8, 16]
    assert all(value > 0 for value in found["milliseconds"])
    assert found["read_bytes_per_second"] > 1e8
