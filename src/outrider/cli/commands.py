"""The commands of a session: /help lists them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from outrider.cli.answer import note, print_figures
from outrider.cli.keyboard import KEYS
from outrider.cli.messages import read_messages, write_messages
from outrider.cli.session import Session
from outrider.errors import UsageError

_SETTINGS = (
    *("max_tokens", "min_tokens", "temperature", "top_k", "top_p", "min_p", "typical_p", "repetition_penalty"),
    *("presence_penalty", "frequency_penalty", "seed", "stop", "draft", "lora"),
)
"""Fields of SamplingParams that /set changes."""


@dataclass(frozen=True)
class Command:
    """What follows a slash. `run` gets the session and what was typed after the name."""

    name: str
    argument: str
    help: str
    run: Callable[[Session, str], None]
    chat_only: bool = False


def _help(session: Session, _argument: str) -> None:
    model = session.llm.path.name
    if session.chat:
        note(f"{model} is a chat model: it answers what you type.")
    else:
        note(f"{model} is a base model: it continues your text and does not chat. An empty line lets it continue.")
    for command in commands_for(session):
        note(f"  {f'/{command.name} {command.argument}':<21}{command.help}")
    note("  (a space before the slash makes it a message)")
    note(KEYS)


def _system(session: Session, argument: str) -> None:
    if argument:
        session.system = "" if argument == '""' else argument
    note(f"system: {session.system}" if session.system else "no system text")


def _set(session: Session, argument: str) -> None:
    typed, _, value = argument.partition(" ")
    name = typed.lstrip("-").replace("-", "_")
    names = [*_SETTINGS, *(["thinking"] if session.chat else [])]
    if name and name not in names:
        raise UsageError(f"there is no setting {typed}: {_did_you_mean(name, names) or '/set lists all'}")
    if name == "thinking" and value.strip():
        session.thinking = _flag(value.strip())
    elif value.strip():
        change: dict[str, Any] = {name: _value(value.strip())}
        changed = replace(session.params, **change)
        session.llm.parts.prompts.check_adapter(changed.lora)
        session.params = changed
    values = {field: getattr(session.params, field) for field in _SETTINGS} | {"thinking": session.thinking}
    for shown in [name] if name else names:
        note(f"  {shown} {json.dumps(values[shown], ensure_ascii=False)}")


def _retry(session: Session, _argument: str) -> None:
    session.retry()


def _clear(session: Session, _argument: str) -> None:
    session.messages, session.last = [], None


def _save(session: Session, argument: str) -> None:
    path = _path(argument, "/save")
    if not session.messages:
        raise UsageError("nothing was said yet: there is nothing to save")
    write_messages(path, session.transcript)
    note(f"saved {len(session.transcript)} messages in {path}")


def _load(session: Session, argument: str) -> None:
    path = _path(argument, "/load")
    messages = read_messages(path)
    system = messages.pop(0)["content"] if messages[0]["role"] == "system" else ""
    if system and not session.chat:
        raise UsageError(f"{path} begins with a system message, which a base model cannot use")
    session.system, session.messages, session.last = system, messages, None
    waiting = messages and messages[-1]["role"] == "user"
    note(f"loaded {len(session.transcript)} messages" + (": /retry answers the last one" if waiting else ""))


def _stats(session: Session, _argument: str) -> None:
    if session.last is None:
        note("nothing was answered yet")
    elif session.last.stats is None:
        note(f"the last answer was stopped after {session.last.tokens} tokens")
    else:
        print_figures(session.last)


def _exit(_session: Session, _argument: str) -> None:
    raise EOFError


COMMANDS = (
    Command("help", "", "this text", _help),
    Command("system", "[TEXT]", 'show or set the system text; "" removes it', _system, chat_only=True),
    Command("set", "[NAME [VALUE]]", "show or change settings: /set temperature 0.7", _set),
    Command("retry", "", "answer the last message again", _retry),
    Command("clear", "", "forget what was said", _clear),
    Command("save", "FILE", "write what was said as JSON", _save),
    Command("load", "FILE", "go back to what was saved", _load),
    Command("stats", "", "figures of the last answer", _stats),
    Command("exit", "", "leave (also /quit)", _exit),
)


def commands_for(session: Session) -> list[Command]:
    """Those that fit the model."""
    return [command for command in COMMANDS if session.chat or not command.chat_only]


def run_command(session: Session, typed: str) -> bool:
    """Runs what was typed if it is a command, which begins with a slash and a word; False if it is not.

    Raises:
        UsageError: there is no such command, or its argument is wrong.
        EOFError: it ends the session.
    """
    word, *rest = typed.split(maxsplit=1) or [""]
    if not (typed.startswith("/") and word[1:].isalpha()):
        return False
    name = "exit" if word == "/quit" else word[1:]
    command = next((command for command in commands_for(session) if command.name == name), None)
    if command is None:
        if any(command.name == name for command in COMMANDS):
            raise UsageError(f"{word} is for chat models, and {session.llm.path.name} is a base model")
        names = [f"/{command.name}" for command in commands_for(session)]
        raise UsageError(f"there is no command {word}: {_did_you_mean(word, names) or '/help lists all'}")
    command.run(session, "".join(rest).strip())
    return True


def _did_you_mean(typed: str, names: Iterable[str]) -> str:
    close = get_close_matches(typed, list(names), n=1)
    return f"did you mean {close[0]}?" if close else ""


def _flag(value: str) -> bool:
    if value not in ("on", "off", "true", "false"):
        raise UsageError(f"thinking must be on or off, not {value}")
    return value in ("on", "true")


def _value(typed: str) -> object:
    """A number, a list or a quoted text as JSON; anything else as it is typed."""
    try:
        return json.loads(typed)
    except ValueError:
        return typed


def _path(argument: str, command: str) -> Path:
    if not argument:
        raise UsageError(f"{command} needs a file: {command} FILE")
    return Path(argument).expanduser() if argument.startswith("~/") else Path(argument)
