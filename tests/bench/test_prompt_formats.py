"""A base model continues a text, a chat model answers a message, whichever the prompt was written as."""

from __future__ import annotations

import json

import pytest

from outrider import SamplingParams
from outrider.bench.prompt import Message, Prompt, PromptFormat, render

TALK = Prompt(
    "talk",
    messages=(Message("system", "Be brief."), Message("user", "Hello")),
    further=("And a bee?", "And a wasp?"),
)
TEXT = Prompt("prose", "Once upon")


def test_chat_gets_a_text_as_a_users_message():
    assert TEXT.in_format(PromptFormat.chat) == Prompt("prose", messages=(Message("user", "Once upon"),))
    assert TALK.in_format(PromptFormat.chat) is TALK


def test_base_gets_a_conversation_as_text_with_the_assistants_turn_begun():
    assert TALK.in_format(PromptFormat.base) == Prompt("talk", "System: Be brief.\n\nUser: Hello\n\nAssistant:")
    assert TEXT.in_format(PromptFormat.base) is TEXT


def test_turns_follow_the_answers_and_are_prompts_of_their_own():
    second = TALK.answered("Hi.")
    assert second.messages == (*TALK.messages, Message("assistant", "Hi."), Message("user", "And a bee?"))
    third = second.answered("It flies.")
    assert third.messages[-2:] == (Message("assistant", "It flies."), Message("user", "And a wasp?"))
    assert third.answered("It does too.") is None
    assert len({TALK, second, third}) == 3


@pytest.fixture
def talk_file(tmp_path):
    path = tmp_path / "talk.jsonl"
    lines = [{"turns": ["Hello", "And a bee?"], "category": "writing"}, {"prompt": "Once upon", "category": "prose"}]
    path.write_text("\n".join(map(json.dumps, lines)))
    return str(path)


def asked(llm):
    """The prompts, as texts, in the order in which they were first asked."""
    texts = [bytes(prompt[1:]).decode() for prompt, _ in llm.asked]
    return list(dict.fromkeys(texts))


def decode(call, file, *more):
    ran = call("bench", "decode", "demo", "--json", "--suite", file, "--seconds", "0", *more)
    assert ran.code == 0, ran.err
    return json.loads(ran.out)


def test_a_model_with_a_template_is_asked_with_messages_turn_by_turn(fake, call, talk_file):
    fake.chat = object()
    found = decode(call, talk_file)
    assert (found["suite"], found["prompt_format"]) == ("talk.jsonl", "chat")
    assert sorted(asked(fake.made[0])) == [
        "user=Hello",
        "user=Hello|assistant= is größer.|user=And a bee?",
        "user=Once upon",
    ]
    assert {name: of["prompts"] for name, of in found["categories"].items()} == {"writing": 2, "prose": 1}


def test_every_turn_is_compared(fake, call, talk_file):
    """An answer that drafting changed only in a further turn is found."""
    fake.chat = object()
    honest = fake.stream

    def stream(self, prompt, params):
        self.unfaithful = b"bee" in bytes(prompt[1:])
        return honest(self, prompt, params)

    fake.stream = stream
    ran = call("bench", "decode", "demo", "--json", "--suite", talk_file, "--seconds", "0")
    assert ran.code == 1
    found = json.loads(ran.out)["categories"]
    assert {name: of["identical"] for name, of in found.items()} == {"writing": False, "prose": True}


def test_a_model_without_a_template_is_given_texts(fake, call, talk_file):
    found = decode(call, talk_file)
    assert found["prompt_format"] == "base"
    assert sorted(asked(fake.made[0])) == ["Once upon", "User: Hello\n\nAssistant:"]


def test_the_form_can_be_asked_for(fake, call, talk_file):
    fake.chat = object()
    assert decode(call, talk_file, "--prompt-format", "base")["prompt_format"] == "base"
    fake.chat = None
    ran = call("bench", "decode", "demo", "--suite", talk_file, "--prompt-format", "chat")
    assert ran.code == 2
    assert "demo.gguf has no chat template, which --prompt-format chat needs: leave that out" in ran.err
    assert fake.made[-1].asked == []


def test_a_text_is_not_read_as_control_tokens(fake):
    """A base prompt is encoded as text; only a conversation goes through the template."""
    llm = fake("demo")
    sampling = SamplingParams(max_tokens=8)
    assert render(TEXT, llm, sampling) == (llm.tokenizer.encode("Once upon"), sampling)
    chat = TEXT.in_format(PromptFormat.chat)
    assert render(chat, llm, sampling) == (llm.tokenizer.encode("user=Once upon"), sampling)
