"""A chat request of any API: from messages and tools to a generation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from outrider.chat.grammar import Function, after_a_thought, grammar_of_calls
from outrider.chat.markers import Markers
from outrider.server.errors import ApiError
from outrider.server.generation import Generation
from outrider.server.sampling import SamplingFields
from outrider.server.service import Service


@dataclass(frozen=True)
class Conversation:
    """What a chat API asks for, besides sampling.

    messages, tools: in the form of chat templates, which is OpenAI's.
    required: functions of which one must be called. parallel: allow more calls after it.
    thinking: let the model reason first.
    """

    messages: Sequence[dict[str, Any]]
    tools: Sequence[dict[str, Any]] = ()
    required: Sequence[Function] = ()
    parallel: bool = False
    thinking: bool = False


def chat_generation(
    service: Service, chat: Conversation, sampling: SamplingFields, *, cache_salt: str, logprobs: int | None
) -> tuple[Generation, Markers]:
    """The generation of the model's next turn, and the control tokens that its text is read by.

    Raises:
        ApiError, UsageError: the model has no chat template, or it does not take the messages or tools; they are too
            long; a response format is wrong.
    """
    prompts = service.parts.prompts
    if prompts.template is None:
        raise ApiError(400, f"{service.name} is a base model without a chat template: use /v1/completions")
    markers = prompts.markers(tools=bool(chat.tools))
    prompt = prompts.conversation(chat.messages, tools=chat.tools or None, thinking=chat.thinking)
    field, form = sampling.constraint()
    if form is not None and chat.tools:
        message = f"{field} and tools exclude each other: leave one out, or set tool_choice to none"
        raise ApiError(400, message, param=field)
    thinking, whole = chat.thinking and markers.channels, form
    if form is not None and thinking:
        whole = after_a_thought(form, service.tokenizer)
    elif chat.required:
        whole = grammar_of_calls(chat.required, service.tokenizer, several=chat.parallel, thinking=thinking)
    params = sampling.params(
        service.context - len(prompt),
        cache_salt,
        logprobs,
        whole,
        markers.keep_special,
        () if markers.last_mark is None else (markers.last_mark,),
    )
    # The format by itself comes first: errors are then about what the client sent.
    grammars = tuple(dict.fromkeys(grammar for grammar in (form, whole) if grammar is not None))
    return Generation([prompt], service.checked(params), grammars, field or "tool_choice"), markers
