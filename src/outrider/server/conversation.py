"""A chat request of any API: from the model's next turn to a generation."""

from __future__ import annotations

from dataclasses import replace

from outrider.chat.markers import Markers, UnknownToolsError
from outrider.chat.turn import TurnRequest
from outrider.server.errors import ApiError, about
from outrider.server.generation import Generation
from outrider.server.sampling import SamplingFields
from outrider.server.service import Service


def chat_generation(
    service: Service, request: TurnRequest, sampling: SamplingFields, *, cache_salt: str, logprobs: int | None
) -> tuple[Generation, Markers]:
    """The generation of the model's next turn, and how its text is read.

    Raises:
        ApiError: the model has no chat template, or it does not take the messages or tools; they are too long; a
            response format is wrong.
    """
    prompts = service.parts.prompts
    if prompts.template is None:
        raise ApiError(400, f"{service.name} is a base model without a chat template: use /v1/completions")
    with about("messages"):
        try:
            turn = prompts.turn(replace(request, ignore_media=service.host.ignore_media))
        except UnknownToolsError as error:
            raise ApiError(400, str(error), param="tools") from error
    field, answer = sampling.constraint()
    room = service.context - len(turn.ids)
    lora = service.adapter(sampling.model)
    params = sampling.params(room, service.sampling, cache_salt, logprobs=logprobs, grammar=answer, lora=lora)
    with about(field or "tools"):
        whole = turn.params(params)
    # The format by itself comes first: errors are then about what the client sent.
    grammars = tuple(dict.fromkeys(grammar for grammar in (answer, whole.grammar) if grammar is not None))
    empty = sampling.max_tokens == 0
    generation = Generation([(turn.ids, service.checked(whole))], sampling.n, grammars, field or "tools", empty=empty)
    return generation, turn.markers
