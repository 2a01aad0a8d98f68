"""A session with the tiny chat checkpoint, whose random answers are full of control tokens and half characters."""

from __future__ import annotations

import pytest
from server.served_checkpoint import save_served

from outrider import LLM, SamplingParams
from outrider.cli.chat import converse
from outrider.cli.session import Session


@pytest.fixture(scope="module")
def chat_llm(tmp_path_factory):
    target, drafter = save_served(tmp_path_factory.mktemp("chat"))
    return LLM(target, drafter=drafter, threads=1, progress=False)


def talk(llm, *typed, params=SamplingParams(max_tokens=24, temperature=1.0, seed=3)):  # noqa: B008 (never changed)
    messages = iter(typed)

    def read():
        try:
            return next(messages)
        except StopIteration:
            raise EOFError from None

    session = Session(llm, params)
    converse(session, read)
    return session


@pytest.mark.parametrize("draft", ["auto", "off"])
def test_a_conversation_can_be_saved_and_continued(chat_llm, tmp_path, draft):
    file = tmp_path / "talk.json"
    first = talk(chat_llm, f"/set draft {draft}", "/system be nice", "hallo\nyou", f"/save {file}", "and?", "/retry")
    assert [turn["role"] for turn in first.messages] == ["user", "assistant"] * 2
    again = talk(chat_llm, "/set draft off", f"/load {file}", "/set seed 4", "and?")
    assert again.transcript == first.transcript


def test_no_control_token_is_shown(chat_llm, capsys):
    session = talk(chat_llm, "/set thinking on", *("go on" for _ in range(8)))
    shown = capsys.readouterr().out
    assert len(session.messages) == 16
    assert not any(mark in shown for mark in ("<eos>", "<bos>", "<|channel>", "<channel|>", "<|tool_call>"))


def test_a_message_that_is_too_long_changes_nothing(chat_llm, capsys):
    session = talk(chat_llm, "hallo", "a b " * 2040, "/retry")
    assert f"leaves no room in a context of {chat_llm.context}" in capsys.readouterr().err
    assert [turn["role"] for turn in session.messages] == ["user", "assistant"]
