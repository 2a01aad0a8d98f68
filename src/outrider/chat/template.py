"""A checkpoint's chat template: from messages to a prompt in the format that the model was trained on."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from outrider.chat.literals import TaggedTemplate, written_by
from outrider.checkpoints.chat_template import refusing, stored_template
from outrider.checkpoints.tokenizer_tables import TokenizerTables
from outrider.errors import CheckpointError, UsageError


class ChatTemplate:
    """A compiled template. It runs in a sandbox that gives access to the arguments only.

    Args:
        source: the Jinja source from the checkpoint.
        bos: the text of the BOS token, which templates write into the prompt.
        tokens: texts of other special tokens, by their variables in templates ("eos_token", ...).

    Attributes: `written` is all text that the template writes itself.

    Raises:
        CheckpointError: the source is not a valid template.
    """

    def __init__(self, source: str, *, bos: str, tokens: Mapping[str, str] = MappingProxyType({})) -> None:
        extensions = [loopcontrols, _GenerationBlock]
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=extensions)
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = lambda format: datetime.now().astimezone().strftime(format)
        try:
            self.written = written_by(environment.parse(source))
            environment.from_string(source)
        except jinja2.TemplateError as error:
            raise CheckpointError(f"its chat template cannot be read ({error})") from error
        self.source, self._environment = source, environment
        self._tokens = {**tokens, "bos_token": bos}
        self._tagged: dict[frozenset[str], TaggedTemplate] = {}

    @cached_property
    def alternates(self) -> bool:
        """Whether it knows user and assistant in turns alone: it refuses two neighbours of one role."""
        try:
            self.render([{"role": "user", "content": "a"}] * 2)
        except UsageError:
            return True
        return False

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        thinking: bool = False,
    ) -> str:
        """The prompt of a conversation as one text, BOS included, up to the beginning of the model's turn. Raises as
        `parts`."""
        return "".join(self.parts(messages, (), tools=tools, variables={"enable_thinking": thinking}))

    def parts(
        self,
        messages: Sequence[Mapping[str, Any]],
        marks: Collection[str],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        variables: Mapping[str, Any] = MappingProxyType({}),
        generation: bool = True,
    ) -> list[str]:
        """The prompt of a conversation, BOS included, up to the beginning of the model's turn.

        Args:
            messages: in OpenAI's format: objects with `role` and `content`.
            marks: texts of the control tokens.
            tools: functions that the model may call, in OpenAI's format.
            variables: what else the template may read, such as `enable_thinking`.
            generation: begin the model's turn.

        Returns:
            Text, control token, text, ..., text: only the template's own control tokens are apart.

        Raises:
            UsageError: the template refuses these messages, or fails on them.
        """
        known = frozenset(marks)
        template = self._tagged.get(known)
        if template is None:
            tagged = TaggedTemplate(self._environment, self.source, known, self._tokens)
            template = self._tagged[known] = tagged
        given = {
            "documents": None,
            **variables,
            "messages": messages,
            "tools": tools,
            "add_generation_prompt": generation,
        }
        try:
            return template.render(given)
        except (jinja2.TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
            problem = template.untagged(str(error))
        except RecursionError:
            problem = "they nest too deeply"
        raise UsageError(f"the model's chat template does not take these messages: {problem}")


def chat_template_of(source: TokenizerTables | Path) -> ChatTemplate | None:
    """The chat template of a checkpoint; None if it has none. One that is no valid template refuses conversations.

    Args:
        source: a GGUF file's tables, or the path of a tokenizer.json, beside which the template is.

    Raises:
        CheckpointError: the settings beside a tokenizer.json cannot be read.
    """
    if (stored := stored_template(source)) is None:
        return None
    bos = stored.tokens["bos_token"]
    try:
        return ChatTemplate(stored.source, bos=bos, tokens=stored.tokens)
    except CheckpointError as error:
        return ChatTemplate(refusing(error.problem), bos=bos)


class _GenerationBlock(Extension):
    """`{% generation %}`, which marks the model's own text for training. It renders what it encloses."""

    tags = {"generation"}  # noqa: RUF012 (as the base class declares it)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True)).set_lineno(line)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as transformers' filter writes it: HTML is not escaped, and non-ASCII characters are only if asked for."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)
