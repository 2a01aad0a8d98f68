"""A checkpoint's own chat template: from messages to the text that the model was trained on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from outrider.checkpoints.tokenizer_tables import TokenizerTables
from outrider.errors import CheckpointError, UsageError


class ChatTemplate:
    """A template, compiled. It runs in a sandbox: it can read what it is given and nothing else.

    Args:
        source: the Jinja text that the checkpoint came with.
        bos: text of the BOS token, which templates write themselves.

    Raises:
        CheckpointError: the text is no template.
    """

    def __init__(self, source: str, *, bos: str) -> None:
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = lambda form: datetime.now().astimezone().strftime(form)
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            raise CheckpointError(f"its chat template cannot be read ({error})") from error
        self.source, self._bos = source, bos

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        thinking: bool = False,
    ) -> str:
        """The prompt of a conversation, up to where the model's turn begins. It holds its own BOS.

        Args:
            messages: OpenAI's: objects with `role` and `content`.
            tools: functions that the model may call, as OpenAI describes them.
            thinking: let the model reason before it answers, where its template knows of that.

        Raises:
            UsageError: the template refuses these messages, or fails on them.
        """
        try:
            return self._template.render(
                messages=messages,
                tools=tools,
                enable_thinking=thinking,
                add_generation_prompt=True,
                bos_token=self._bos,
            )
        except (jinja2.TemplateError, TypeError, ValueError, KeyError, AttributeError) as error:
            raise UsageError(f"the model's chat template does not take these messages: {error}") from error


def chat_template_of(source: TokenizerTables | Path) -> ChatTemplate | None:
    """The template that came with a tokenizer: in a GGUF's tables, or in files beside a tokenizer.json.

    Raises:
        CheckpointError: there is one, and it cannot be read.
    """
    if isinstance(source, TokenizerTables):
        bos = source.tokens[source.bos_token_id]
        return ChatTemplate(source.chat_template, bos=bos) if source.chat_template else None
    settings = source.with_name("tokenizer_config.json")
    template = source.with_name("chat_template.jinja")
    try:
        config = json.loads(settings.read_text("utf-8")) if settings.is_file() else {}
        text = template.read_text("utf-8") if template.is_file() else config.get("chat_template")
    except (OSError, ValueError) as error:
        raise CheckpointError(f"its chat template cannot be read ({error})", path=settings) from error
    bos = config.get("bos_token", "<bos>")
    bos = bos.get("content", "<bos>") if isinstance(bos, dict) else bos
    return ChatTemplate(text, bos=bos) if isinstance(text, str) else None


def _to_json(value: Any, indent: int | None = None) -> str:
    """As transformers writes it: not escaped for HTML, non-ASCII characters as they are."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)
