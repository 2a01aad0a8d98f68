"""What a session asks the model and what its commands do, without a terminal."""

from __future__ import annotations

import json

import pytest

from outrider.chat.markers import Markers
from outrider.cli.answer import stream_answer
from outrider.cli.chat import converse
from outrider.cli.request import Request
from outrider.cli.session import Session
from outrider.errors import UsageError
from outrider.sampling.params import SamplingParams


@pytest.fixture
def talk(fake):
    """Types messages into a session with a base model, or a chat model; the session."""

    def run(*typed, chat=False, session=None, **settings):
        llm = fake("demo")
        llm.chat = object() if chat else None
        session = session or Session(llm, SamplingParams(), **settings)
        messages = iter(typed)

        def read():
            try:
                message = next(messages)
            except StopIteration:
                raise EOFError from None
            if message is KeyboardInterrupt:
                raise KeyboardInterrupt
            return message

        converse(session, read)
        return session

    return run


def asked(session):
    """The prompts so far, as text."""
    prompts = [prompt for prompt, _ in session.llm.asked]
    return [prompt if isinstance(prompt, str) else bytes(prompt[1:]).decode() for prompt in prompts]


def test_a_base_model_continues_everything_so_far(talk):
    first = "Paris is größer."
    second = f"{first}\nRome is größer."
    assert asked(talk("", "Paris", "Rome", "")) == ["Paris", f"{first}\nRome", second]


def test_a_chat_model_gets_turns(talk, capsys):
    session = talk("Hi", "", "And?", "/clear", "New", chat=True)
    assert asked(session) == ["user=Hi", "user=Hi|assistant= is größer.|user=And?", "user=New"]
    assert "base model" not in capsys.readouterr().err


def test_several_lines_are_one_message(talk):
    assert asked(talk("one\ntwo\nthree\n", chat=True)) == ["user=one\ntwo\nthree"]


def test_the_system_text_comes_first_and_outlives_the_conversation(talk, capsys):
    session = talk("/system be nice", "Hi", "/clear", "Hi", "/system", '/system ""', "/clear", "Hi", chat=True)
    assert asked(session) == ["system=be nice|user=Hi"] * 2 + ["user=Hi"]
    assert capsys.readouterr().err.count("system: be nice\n") == 2
    assert asked(talk("/system\nbe nice\nand short", "Hi", chat=True)) == ["system=be nice\nand short|user=Hi"]


def test_a_base_model_has_no_system_text(talk, capsys):
    assert asked(talk("/system be nice")) == []
    assert "error: /system is for chat models, and demo.gguf is a base model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "name", "value"),
    [
        ("temperature 0.7", "temperature", 0.7),
        ("top-k 40", "top_k", 40),
        ("--max-tokens  9", "max_tokens", 9),
        ('stop "\\n\\n"', "stop", ("\n\n",)),
        ("stop the end", "stop", ("the end",)),
        ("draft off", "draft", "off"),
        ("draft 4", "draft", 4),
    ],
)
def test_settings_hold_from_the_next_answer_on(talk, typed, name, value):
    session = talk("one", f"/set {typed}", "two")
    before, after = (params for _, params in session.llm.asked)
    assert getattr(before, name) == getattr(SamplingParams(), name)
    assert getattr(after, name) == value


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("temperature hot", "temperature must be a number, not 'hot' (str)"),
        ("temperature -1", "temperature must lie between 0 and 100, not -1"),
        ("max_tokens 0.5", "max_tokens must be a whole number"),
        ("draft 99", 'draft must be "auto", "off" or a number from 0 to 63, not 99'),
        ("temprature 1", "there is no setting temprature: did you mean temperature?"),
        ("grammar x", "there is no setting grammar: /set lists all"),
        ("thinking on", "there is no setting thinking: /set lists all"),
    ],
)
def test_settings_are_checked(talk, capsys, typed, said):
    session = talk(f"/set {typed}")
    assert session.params == SamplingParams()
    assert f"error: {said}" in capsys.readouterr().err


def test_settings_are_listed(talk, capsys):
    talk("/set", "/set top_p", "/set thinking on", "/set thinking maybe", chat=True)
    said = capsys.readouterr().err
    assert "  temperature 0.0\n" in said
    assert said.count("  top_p 1.0\n") == 2
    assert "  thinking false\n" in said
    assert "  thinking true\n" in said
    assert "error: thinking must be on or off, not maybe" in said


def test_thinking_reaches_the_template(talk):
    assert not talk("Hi", chat=True).llm.thinking
    assert talk("/set thinking on", "Hi", chat=True).llm.thinking


def test_thoughts_are_no_part_of_the_conversation(talk, fake, monkeypatch):
    monkeypatch.setattr(fake, "answer", "<|channel>thought\nbecause<channel|>4 degrees")
    session = talk("How warm?", chat=True)
    assert session.messages[-1] == {"role": "assistant", "content": "4 degrees"}
    assert "<|channel>" in session.llm.asked[0][1].keep_special


def test_retry_draws_again(talk, capsys):
    session = talk("/set temperature 1", "Hi", "/retry", "/retry", chat=True)
    assert asked(session) == ["user=Hi"] * 3
    assert [params.seed for _, params in session.llm.asked] == [0, 1, 2]
    assert len(session.messages) == 2
    assert "greedy" not in capsys.readouterr().err


def test_retry_of_a_greedy_answer_is_said_to_be_the_same(talk, capsys):
    assert asked(talk("Hi", "/retry")) == ["Hi", "Hi"]
    assert "greedy: the same answer again; /set temperature 0.7" in capsys.readouterr().err


def test_there_is_nothing_to_retry_or_save_at_first(talk, capsys):
    talk("/retry", "/save x.json", "/stats")
    said = capsys.readouterr().err
    assert "error: nothing to answer again" in said
    assert "error: nothing was said yet" in said
    assert "nothing was answered yet" in said


@pytest.mark.parametrize("chat", [True, False])
def test_a_saved_conversation_goes_on(talk, tmp_path, chat):
    file = tmp_path / "talk one.json"
    system = ["/system be nice"] if chat else []
    first = talk(*system, "Größe?\n\udcff", f"/save {file}", "And?", chat=chat)
    again = talk(f"/load {file}", "And?", chat=chat)
    assert again.transcript == first.transcript
    assert asked(again)[-1] == asked(first)[-1]
    saved = json.loads(file.read_text("utf-8"))["messages"]
    roles = [message["role"] for message in saved]
    assert roles == [*(["system"] if chat else []), "user", "assistant"]
    assert list(tmp_path.iterdir()) == [file]


def test_a_bare_list_of_messages_is_loaded_and_its_last_question_answered(talk, tmp_path, capsys):
    file = tmp_path / "asked.json"
    file.write_text(json.dumps([{"role": "user", "content": "Hi", "name": "me"}]))
    session = talk(f"/load {file}", "/retry", chat=True)
    assert asked(session) == ["user=Hi"]
    assert "loaded 1 messages: /retry answers the last one" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read (No such file or directory)"),
        ("{", "is not JSON ("),
        ("[" * 100_000, "is not JSON ("),
        ("7", "holds no messages: expected"),
        ('{"messages": []}', "holds no messages: expected"),
        ('[{"role": "user", "content": "x"}, "y"]', "messages[1] is no message: expected a role (system, user, assi"),
        ('[{"role": "tool", "content": "x"}]', "messages[0] is no message"),
        ('[{"role": "user", "content": [{"type": "text"}]}]', "messages[0] is no message"),
        ('[{"role": "user", "content": ""}, {"role": "system", "content": ""}]', "only the first message may be one"),
        ('[{"role": "system", "content": "x"}]', "begins with a system message, which a base model cannot use"),
    ],
)
def test_a_file_that_is_no_conversation_changes_nothing(talk, tmp_path, capsys, content, said):
    file = tmp_path / "talk.json"
    if content is not None:
        file.write_text(content)
    session = talk("one", f"/load {file}")
    assert len(session.messages) == 2
    assert f"error: {file}" in (found := capsys.readouterr().err)
    assert said in found


def test_a_file_that_cannot_be_written_leaves_nothing_behind(talk, tmp_path, capsys):
    (tmp_path / "folder").mkdir()
    talk("one", f"/save {tmp_path / 'folder'}", f"/save {tmp_path / 'none' / 'x.json'}", "/save")
    said = capsys.readouterr().err
    assert "folder cannot be written (Is a directory): name another file" in said
    assert "x.json cannot be written (No such file or directory)" in said
    assert "error: /save needs a file: /save FILE" in said
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("/retyr", "there is no command /retyr: did you mean /retry?"),
        ("/what", "there is no command /what: /help lists all"),
        ("/sett temperature 1", "there is no command /sett: did you mean /set?"),
    ],
)
def test_an_unknown_command_is_no_message(talk, capsys, typed, said):
    assert asked(talk(typed)) == []
    assert f"error: {said}" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["/usr/bin/env", " /retry", "/* a comment */", "/"])
def test_what_only_begins_with_a_slash_is_a_message(talk, text):
    assert asked(talk(text)) == [text]


def test_help_is_for_what_the_model_is(talk, capsys):
    talk("/help")
    base = capsys.readouterr().err
    talk("/help", chat=True)
    chat = capsys.readouterr().err
    assert "demo.gguf is a base model" in base
    assert "/system" not in base
    assert "demo.gguf is a chat model" in chat
    assert "base model" not in chat
    assert "/system [TEXT]" in chat
    assert "Alt-Enter" in chat
    assert all(len(line) < 80 for line in chat.splitlines())


@pytest.mark.parametrize("leave", ["/exit", "/quit"])
def test_a_command_leaves(talk, leave):
    assert asked(talk("one", leave, "two")) == ["one"]


def test_an_interrupt_at_the_prompt_says_how_to_leave(talk, capsys):
    assert asked(talk(KeyboardInterrupt, "one")) == ["one"]
    assert "Ctrl-D or /exit leaves" in capsys.readouterr().err


@pytest.mark.parametrize(("chat", "hint"), [(True, "/set max_tokens N"), (False, "an empty line continues")])
def test_a_limit_is_named(talk, capsys, chat, hint):
    talk("/set max_tokens 5", "one", chat=chat)
    assert f"stopped at --max-tokens 5 ({hint})" in capsys.readouterr().err


def test_the_end_of_the_context_is_named(talk, capsys):
    talk("one")
    assert "stopped at the end of the context, 32768 tokens" in capsys.readouterr().err


def test_an_error_leaves_the_conversation_as_it_was(talk, fake, capsys):
    llm = fake("demo")
    stream = llm.stream

    def refuse_long(prompt, params):
        if "Rome" in prompt:
            raise UsageError("the prompt is too long")
        return stream(prompt, params)

    llm.stream = refuse_long
    session = talk("Paris", "Rome", "Oslo", session=Session(llm, SamplingParams()))
    assert asked(session) == ["Paris", "Paris is größer.\nOslo"]
    assert "error: the prompt is too long" in capsys.readouterr().err


def test_a_second_interrupt_abandons_the_answer(talk, fake, capsys):
    llm = fake("demo")

    def interrupted(*_):
        raise KeyboardInterrupt

    llm.stream = interrupted
    assert talk("Paris", session=Session(llm, SamplingParams())).messages == []
    assert "(stopped at once: the conversation is as before)" in capsys.readouterr().err


def test_stopping_closes_the_request(fake, capsys):
    llm = fake("demo")
    answer = stream_answer(llm, Request("x", SamplingParams(), Markers()), stopped=lambda: True)
    assert llm.cancelled == 1
    assert answer.stats is None
    assert capsys.readouterr().out == answer.text + "\n"
