"""A chat request of any API: from messages and tools to a generation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from outrider import Grammar
from outrider.chat.grammar import Function, after_a_thought, calls_or_answer, grammar_of_calls
from outrider.chat.markers import Markers
from outrider.server.errors import ApiError, about
from outrider.server.generation import Generation
from outrider.server.sampling import SamplingFields
from outrider.server.service import Service


@dataclass(frozen=True)
class Conversation:
    """What a chat API asks for, besides sampling.

    messages, tools: in the form of chat templates, which is OpenAI's.
    functions: those of the tools. required: one of them must be called. parallel: there may be several calls.
    thinking: let the model reason first.
    """

    messages: Sequence[dict[str, Any]]
    tools: Sequence[dict[str, Any]] = ()
    functions: Sequence[Function] = ()
    required: bool = False
    parallel: bool = True
    thinking: bool = False


def chat_generation(
    service: Service, chat: Conversation, sampling: SamplingFields, *, cache_salt: str, logprobs: int | None
) -> tuple[Generation, Markers]:
    """The generation of the model's next turn, and the control tokens that its text is read by.

    Raises:
        ApiError: the model has no chat template, or it does not take the messages or tools; they are too long; a
            response format is wrong.
    """
    prompts = service.parts.prompts
    if prompts.template is None:
        raise ApiError(400, f"{service.name} is a base model without a chat template: use /v1/completions")
    with about("tools"):
        markers = prompts.markers(tools=bool(chat.tools))
    with about("messages"):
        prompt = prompts.conversation(chat.messages, tools=chat.tools or None, thinking=chat.thinking)
    field, answer = sampling.constraint()
    with about(field or "tools"):
        whole = _whole(service, chat, answer, thinking=chat.thinking and markers.channels)
    params = sampling.params(
        service.context - len(prompt),
        service.sampling,
        cache_salt,
        logprobs=logprobs,
        grammar=whole,
        keep_special=markers.keep_special,
        stop=() if markers.last_mark is None else (markers.last_mark,),
    )
    # The format by itself comes first: errors are then about what the client sent.
    grammars = tuple(dict.fromkeys(grammar for grammar in (answer, whole) if grammar is not None))
    generation = Generation(
        [(prompt, service.checked(params))], sampling.n, grammars, field or "tools", empty=sampling.max_tokens == 0
    )
    return generation, markers


def _whole(service: Service, chat: Conversation, answer: Grammar | None, *, thinking: bool) -> Grammar | None:
    """The grammar of the whole turn, from that of its content."""
    tokenizer, calls = service.tokenizer, {"several": chat.parallel, "thinking": thinking}
    if chat.required:  # then there is no content
        return grammar_of_calls(chat.functions, tokenizer, **calls)
    if answer is None:
        return None
    if chat.functions:
        return calls_or_answer(chat.functions, answer, tokenizer, **calls)
    return after_a_thought(answer, tokenizer) if thinking else answer
