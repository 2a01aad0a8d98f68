"""What the model's next turn may hold, from its chat template and the request."""

from __future__ import annotations

from outrider import Grammar
from outrider.chat.grammar import after_a_thought, grammar_of_calls
from outrider.chat.markers import Markers
from outrider.server.schema import ChatRequest
from outrider.tokenizer import Tokenizer


class Turn:
    """The turn that a chat request asks for.

    Args:
        template: the source of the model's chat template.

    Raises:
        UnknownToolsError: as `Markers.of`.
    """

    def __init__(self, template: str, tokenizer: Tokenizer, wanted: ChatRequest) -> None:
        self._tokenizer, self._wanted = tokenizer, wanted
        self.thinking = bool(wanted.chat_template_kwargs.get("enable_thinking", False))
        self.markers = Markers.of(template, tools=bool(wanted.offered))

    def grammar(self, form: Grammar | None) -> Grammar | None:
        """What the turn is held to: the form that the request asks for, or calls if it demands one.

        Raises:
            UsageError: the functions' parameters are too deep or too long.
        """
        thinking = self.thinking and self.markers.channels
        if form is not None:
            return after_a_thought(form, self._tokenizer) if thinking else form
        demanded = self._wanted.demanded
        if not demanded:
            return None
        return grammar_of_calls(demanded, self._tokenizer, several=self._wanted.several, thinking=thinking)
