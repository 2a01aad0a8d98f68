"""A file of prompts is read as it is documented, or refused with file, line and what was expected."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outrider.bench import prompt_file
from outrider.bench.prompt import Message, Prompt
from outrider.bench.prompt_file import read_prompt_file, read_prompt_lines
from outrider.errors import UsageError


def written(tmp_path, *lines):
    path = tmp_path / "own.jsonl"
    path.write_bytes(b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines))
    return path


def user(text):
    return Message("user", text)


def test_own_lines(tmp_path):
    conversation = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello", "name": "Ann"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "What is a bee?"},
    ]
    path = written(
        tmp_path,
        b'\xef\xbb\xbf{"prompt": "Es war einmal, fr\xc3\xbcher"}\r',
        b"",
        {"prompt": "x = [", "category": "my code", "id": 7},
        b"   ",
        {"messages": conversation, "category": "talk"},
    )
    assert read_prompt_file(path) == [
        Prompt("own", "Es war einmal, früher"),
        Prompt("my code", "x = ["),
        Prompt("talk", messages=tuple(Message(of["role"], of["content"]) for of in conversation)),
    ]


def test_spec_bench_lines(tmp_path):
    path = written(
        tmp_path,
        {"question_id": 81, "category": "writing", "turns": ["Write about Hawaii.", "Rewrite it."]},
        {"question_id": 161, "category": "translation", "turns": ["Translate."], "reference": ["x"]},
    )
    assert read_prompt_file(str(path)) == [
        Prompt("writing", messages=(user("Write about Hawaii."),), further=("Rewrite it.",)),
        Prompt("translation", messages=(user("Translate."),)),
    ]


OBJECT = 'expected an object with one of "prompt", "messages" or "turns"'
PROMPT = '"prompt": expected a text that is not empty'
TURNS = '"turns": expected a list of texts that are not empty'
MESSAGES = '"messages": expected a list of objects with "role" and "content" (a text that is not empty), "user" and'
CATEGORY = '"category": expected a name, on one line and of at most 40 characters'


def spoken(*roles):
    return {"messages": [{"role": role, "content": "x"} for role in roles]}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"prompt: x", OBJECT),
        (b"[" * 100_000, OBJECT),
        (b'{"prompt": "\xff"}', "is not JSON in UTF-8"),
        (["x"], OBJECT),
        ({"text": "x"}, f"{OBJECT}, found none of them"),
        ({"prompt": "x", "turns": ["x"]}, f"{OBJECT}, found prompt and turns"),
        ({"prompt": 3}, PROMPT),
        ({"prompt": " \n"}, PROMPT),
        ({"prompt": "\ud800"}, "surrogates not allowed"),
        ({"prompt": "x", "category": 3}, CATEGORY),
        ({"prompt": "x", "category": ""}, CATEGORY),
        ({"prompt": "x", "category": "a\x1b[31mb"}, CATEGORY),
        ({"prompt": "x", "category": "a" * 41}, CATEGORY),
        ({"turns": "x"}, TURNS),
        ({"turns": []}, TURNS),
        ({"turns": ["x", ""]}, TURNS),
        ({"messages": {}}, MESSAGES),
        ({"messages": []}, MESSAGES),
        ({"messages": ["x"]}, MESSAGES),
        ({"messages": [{"role": "user"}]}, MESSAGES),
        ({"messages": [{"role": "user", "content": [1]}]}, MESSAGES),
        ({"messages": [{"role": None, "content": "x"}]}, MESSAGES),
        (spoken("system"), MESSAGES),
        (spoken("user", "assistant"), MESSAGES),
        (spoken("user", "user"), MESSAGES),
        (spoken("user", "user", "user"), MESSAGES),
        (spoken("user", "system", "user"), MESSAGES),
        (spoken("system", "system", "user"), MESSAGES),
        (spoken("tool"), MESSAGES),
    ],
)
def test_a_wrong_line_is_told_with_what_was_expected(tmp_path, line, expected):
    path = written(tmp_path, {"prompt": "x"}, b"", line)
    with pytest.raises(UsageError) as refused:
        read_prompt_file(path)
    said = str(refused.value)
    assert said.startswith(f"{path}, line 3")
    assert expected in said


def test_files_that_hold_no_prompts(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match=r'cannot read prompts from .*missing: No such file.*"shipped" or a file'):
        read_prompt_file(tmp_path / "missing")
    with pytest.raises(UsageError, match=r"cannot read prompts from .*directory"):
        read_prompt_file(tmp_path)
    with pytest.raises(UsageError, match=r"own.jsonl holds no prompts: expected an object"):
        read_prompt_file(written(tmp_path, b"", b" "))
    monkeypatch.setattr(prompt_file, "MAX_BYTES", 1 << 20)
    with pytest.raises(UsageError, match=r"own.jsonl has more than the 1 MiB"):
        read_prompt_file(written(tmp_path, {"prompt": "x" * (1 << 20)}))


KEYS = st.sampled_from(["prompt", "messages", "turns", "category", "role", "content"])
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text() | st.sampled_from(["user", "assistant", "system"]),
    lambda inner: st.lists(inner) | st.dictionaries(KEYS | st.text(), inner),
    max_leaves=12,
)
LINES = st.lists(st.dictionaries(KEYS, JSON, min_size=1, max_size=2).map(json.dumps), max_size=3)


@given(st.binary() | LINES.map(lambda lines: "\n".join(lines).encode(errors="replace")))
def test_any_bytes_are_prompts_or_a_sentence(data):
    prompts, said = [], "some.jsonl, line 1"
    try:
        prompts = read_prompt_lines(data, "some.jsonl", "own")
    except UsageError as refused:
        said = str(refused)
    assert said.startswith("some.jsonl, line ")
    for prompt in prompts:
        assert bool(prompt.text) != bool(prompt.messages)
        assert prompt.category.isprintable()
        assert all(map(str.strip, [prompt.text or "-", *(m.content for m in prompt.messages), *prompt.further]))
        assert not prompt.messages or prompt.messages[-1].role == "user"


@given(st.lists(st.text().filter(str.strip), min_size=1, max_size=4))
def test_what_is_written_is_read(texts):
    lines = "\n".join(json.dumps({"prompt": text}) for text in texts) + "\n"
    lines += json.dumps({"turns": texts}, ensure_ascii=False)
    *singles, turns = read_prompt_lines(lines.encode(), "some.jsonl", "own")
    assert [prompt.text for prompt in singles] == texts
    assert [turns.messages[0].content, *turns.further] == texts
