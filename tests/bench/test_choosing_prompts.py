"""Which prompts are decoded: of the shipped suite or a file, by category, and how many of each."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from outrider.bench.prompt import Form
from outrider.bench.suite import choose_prompts
from outrider.errors import UsageError

NAMES = ("writing", "roleplay", "math", "qa", "rag")


@pytest.fixture
def spec_bench(tmp_path):
    """Three questions of each category."""
    path = tmp_path / "question.jsonl"
    lines = [{"category": name, "turns": [f"{name} {i}", "go on"]} for i in range(3) for name in NAMES]
    path.write_text("\n".join(map(json.dumps, lines)))
    return str(path)


def counted(suite, categories=(), limit=None, form=Form.base):
    return list(Counter(prompt.category for prompt in choose_prompts(suite, categories, limit)(form)).items())


def test_of_a_file_all_are_taken_and_of_each_category_as_many_as_asked(spec_bench):
    assert counted(spec_bench) == [(name, 3) for name in NAMES]
    assert counted(spec_bench, ["rag", "writing"], 2) == [("writing", 2), ("rag", 2)]


def test_of_what_ships_a_few_are_taken_in_the_suites_order():
    assert counted("shipped", ["code", "prose"]) == [("prose", 4), ("code", 4)]
    assert counted("shipped", ["code", "prose"], 20) == [("prose", 20), ("code", 20)]


def test_an_unknown_category_names_those_there_are(fake, call, spec_bench):
    ran = call("bench", "decode", "demo", "--category", "poetry")
    assert ran.code == 2
    assert "the shipped suite has no category 'poetry'; it has prose, conversation, explanation" in ran.err
    with pytest.raises(UsageError, match=r"question.jsonl has no category 'prose'; it has writing, .*, rag$"):
        choose_prompts(spec_bench, ["prose"], None)
    assert fake.made == []  # told before a model is loaded


def test_identical_lines_are_one_prompt_and_names_no_markup(fake, call, tmp_path):  # noqa: ARG001
    line = json.dumps({"prompt": "Once", "category": "[/b] $x$"})
    (tmp_path / "[b]own.jsonl").write_text(f"{line}\n{line}\n")
    ran = call("bench", "decode", "demo", "--suite", str(tmp_path / "[b]own.jsonl"), "--seconds", "0")
    assert ran.code == 0, ran.err
    assert "[/b] $x$" in ran.out
    assert "[b]own.jsonl, base format" in ran.out
    ran = call("bench", "decode", "demo", "--suite", str(tmp_path / "[b]own.jsonl"), "--json", "--seconds", "0")
    assert json.loads(ran.out)["categories"]["[/b] $x$"]["prompts"] == 1
