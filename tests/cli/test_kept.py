"""`outrider run --session NAME`: a conversation goes on where it was left, and is nobody else's."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outrider.cli.kept import KeptConversation
from outrider.cli.messages import Message
from outrider.errors import UsageError

ANSWER = " is größer."


@pytest.fixture
def state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "state" / "outrider" / "sessions"


def said(state, name="trip"):
    return [json.loads(line) for line in (state / f"{name}.jsonl").read_text("utf-8").splitlines()]


def test_the_next_prompt_goes_on_with_it(fake, call, state):
    assert call("run", "demo", "Paris", "--session", "trip").code == 0
    assert call("run", "demo", "Rome", "--session", "trip").code == 0
    assert call("run", "demo", "Oslo", "--session", "other").code == 0
    asked = [llm.asked[0][0] for llm in fake.made]
    assert asked == ["Paris", f"Paris{ANSWER}\nRome", "Oslo"]
    assert said(state) == [
        {"role": "user", "content": "Paris"},
        {"role": "assistant", "content": ANSWER},
        {"role": "user", "content": "Rome"},
        {"role": "assistant", "content": ANSWER},
    ]


def test_a_chat_keeps_its_system_text(fake, call, state):
    fake.chat = object()
    call("run", "demo", "Hi", "--session", "trip", "--system", "be nice")
    call("run", "demo", "And?", "--session", "trip")
    call("run", "demo", "So?", "--session", "trip", "--system", "be short")
    asked = [bytes(llm.asked[0][0][1:]).decode() for llm in fake.made]
    first = f"user=Hi|assistant={ANSWER}|user=And?"
    assert asked == [
        "system=be nice|user=Hi",
        f"system=be nice|{first}",
        f"system=be short|{first}|assistant={ANSWER}|user=So?",
    ]
    assert said(state)[0] == {"role": "system", "content": "be short"}


def test_json_goes_on_too(fake, call, state):
    call("run", "demo", "Paris", "--session", "trip", "--json")
    call("run", "demo", "Rome", "--session", "trip", "--json")
    assert fake.made[1].asked[0][0] == f"Paris{ANSWER}\nRome"
    assert len(said(state)) == 4


def test_its_keys_and_values_are_kept_in_the_users_cache(fake, call, state):  # noqa: ARG001
    call("run", "demo", "Paris", "--session", "trip")
    call("run", "demo", "Paris", "--session", "trip", "--prefix-cache-dir", "elsewhere")
    call("run", "demo", "Paris")
    first, *others = (str(llm.options["prefix_cache_dir"]) for llm in fake.made)
    assert first.endswith("cache/outrider/pages")
    assert others == ["elsewhere", "None"]


def test_only_the_owner_can_read_it(fake, call, state):  # noqa: ARG001
    call("run", "demo", "Paris", "--session", "trip")
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in state.iterdir()} == {0o600}


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "a b", "x" * 101, "a\n"])
def test_a_name_must_be_one(fake, call, state, name):
    ran = call("run", "demo", "Paris", "--session", name)
    assert ran.code == 2
    assert "is no name: use letters, digits, dots and dashes" in ran.err
    assert not fake.made
    assert not state.exists()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "line 1 is not JSON"),
        ('{"role": "user", "content": "a"}\n\n', "line 2 is not JSON"),
        ('{"role": "user"}\n', "line 1 is no message"),
        ('{"role": "user", "content": "a"}\n{"role": "system", "content": "b"}\n', "line 2 is a system message"),
        ("[" * 100_000, "line 1 is not JSON"),
    ],
)
def test_a_damaged_file_is_named_and_left_alone(fake, call, state, text, problem):
    state.mkdir(parents=True)
    (state / "trip.jsonl").write_text(text)
    ran = call("run", "demo", "Paris", "--session", "trip")
    assert ran.code == 2
    assert problem in ran.err
    assert "trip.jsonl" in ran.err
    assert not fake.made
    assert (state / "trip.jsonl").read_text() == text


HOLDER = """
import sys
from outrider.cli.kept import KeptConversation
kept = KeptConversation("trip")
print("open", flush=True)
sys.stdin.read()
"""


def test_two_processes_do_not_share_one(fake, call, state):  # noqa: ARG001
    command = [sys.executable, "-c", HOLDER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"open\n"
        ran = call("run", "demo", "Paris", "--session", "trip")
        assert ran.code == 2
        assert "--session trip is open in another process" in ran.err
        assert call("run", "demo", "Paris", "--session", "other").code == 0
        holder.stdin.close()
    assert call("run", "demo", "Paris", "--session", "trip").code == 0


MESSAGES = st.lists(
    st.builds(Message, role=st.sampled_from(["user", "assistant"]), content=st.text(st.characters(), max_size=20)),
    max_size=5,
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(messages=MESSAGES)
def test_any_text_comes_back(state, messages):  # noqa: ARG001
    kept = KeptConversation("any")
    kept.write(messages)
    assert kept.read() == messages


def test_an_interrupted_write_leaves_what_was_there(state, monkeypatch):
    kept = KeptConversation("trip")
    kept.write([Message(role="user", content="a")])

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", full)
        with pytest.raises(UsageError, match=r"cannot be written \(No space left on device\)"):
            kept.write([Message(role="user", content="b")])
    assert kept.read() == [{"role": "user", "content": "a"}]
    assert sorted(path.name for path in state.iterdir()) == ["trip.jsonl", "trip.lock"]
