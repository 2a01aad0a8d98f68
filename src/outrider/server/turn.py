"""What the model's next turn may hold, from its chat template and the request."""

from __future__ import annotations

from outrider import Grammar
from outrider.chat.calls import QUOTE
from outrider.chat.grammar import after_a_thought, grammar_of_calls
from outrider.chat.reader import CALL, CALL_END, CHANNEL, CHANNEL_END, RESPONSE
from outrider.errors import UsageError
from outrider.server.schema import ChatRequest
from outrider.tokenizer import Tokenizer


class UnknownToolsError(UsageError):
    """The model has not learnt to call functions."""


class Turn:
    """The turn that a chat request asks for.

    Args:
        template: the source of the model's chat template; a model knows the markers that it mentions.

    Raises:
        UnknownToolsError: the request has tools, and the template knows none, or writes calls in another form.
    """

    def __init__(self, template: str, tokenizer: Tokenizer, wanted: ChatRequest) -> None:
        self._tokenizer, self._wanted = tokenizer, wanted
        self.thinking = bool(wanted.chat_template_kwargs.get("enable_thinking", False))
        self.channels = CHANNEL in template
        """Whether the model may think."""
        self.tools = bool(wanted.offered)
        """Whether it may call functions."""
        if self.tools and (CALL not in template or "tools" not in template):
            raise UnknownToolsError(
                "the model's chat template does not know tools as Gemma 4's does: describe them in the messages"
            )

    @property
    def keep_special(self) -> tuple[str, ...]:
        """The control tokens that the answer is read by."""
        channels = (CHANNEL, CHANNEL_END) if self.channels else ()
        return (*channels, CALL, CALL_END, QUOTE, RESPONSE) if self.tools else channels

    @property
    def last_mark(self) -> str | None:
        """What ends the turn besides the end tokens."""
        return RESPONSE if self.tools else None

    def grammar(self, form: Grammar | None) -> Grammar | None:
        """What the turn is held to: the form that the request asks for, or calls if it demands one.

        Raises:
            UsageError: the functions' parameters are too deep or too long.
        """
        thinking = self.thinking and self.channels
        if form is not None:
            return after_a_thought(form, self._tokenizer) if thinking else form
        demanded = self._wanted.demanded
        if not demanded:
            return None
        return grammar_of_calls(demanded, self._tokenizer, several=self._wanted.several, thinking=thinking)
