"""What a conversation asks the model, without a terminal."""

from __future__ import annotations

import builtins

import pytest

from outrider.cli import chat
from outrider.errors import UsageError
from outrider.sampling.params import SamplingParams


@pytest.fixture
def talk(monkeypatch, tmp_path, fake):
    """Types lines into a conversation; the model it was held with."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))

    def run(*lines, llm=None):
        llm = llm or fake("demo")
        typed = iter(lines)

        def read(_prompt):
            try:
                return next(typed)
            except StopIteration:
                raise EOFError from None

        monkeypatch.setattr(builtins, "input", read)
        chat.converse(llm, SamplingParams(), show_drafts=False)
        return llm

    return run


def test_history_is_everything_so_far(talk):
    llm = talk("Paris", "Rome", "")
    first = "Paris is größer."
    second = f"{first}\nRome is größer."
    assert [prompt for prompt, _ in llm.asked] == ["Paris", f"{first}\nRome", second]


def test_a_chat_model_gets_turns(talk, fake, capsys):
    llm = fake("demo")
    llm.chat = object()
    talk("Hi", "", "And?", "/clear", "New", llm=llm)
    asked = [bytes(prompt[1:]).decode() for prompt, _ in llm.asked]
    assert asked == ["user=Hi", "user=Hi|assistant= is größer.|user=And?", "user=New"]
    assert "plain text" not in capsys.readouterr().err


def test_clear_begins_a_new_text(talk):
    assert [prompt for prompt, _ in talk("one", "/clear", "two").asked] == ["one", "two"]


def test_a_path_is_no_command(talk):
    assert talk("/usr/bin/env").asked[0][0] == "/usr/bin/env"


def test_an_error_leaves_the_text_as_it_was(talk, fake, capsys):
    llm = fake("demo")
    stream = llm.stream

    def refuse_long(prompt, params):
        if "Rome" in prompt:
            raise UsageError("the prompt is too long")
        return stream(prompt, params)

    llm.stream = refuse_long
    talk("Paris", "Rome", "Oslo", llm=llm)
    assert [prompt for prompt, _ in llm.asked] == ["Paris", "Paris is größer.\nOslo"]
    assert "error: the prompt is too long" in capsys.readouterr().err


def test_stopping_closes_the_request(fake, capsys):
    from outrider.cli.answer import stream_answer

    llm = fake("demo")
    answer = stream_answer(llm, "x", SamplingParams(), stopped=lambda: True)
    assert llm.cancelled == 1
    assert answer.stats is None
    assert capsys.readouterr().out == answer.text + "\n"
