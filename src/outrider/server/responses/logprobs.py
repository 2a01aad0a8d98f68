"""The log-probabilities of an answer's text, which is written later than its tokens come."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from outrider.sampling.logprobs import TokenLogprobs
from outrider.server.openai.logprobs import ChatTokenLogprob, chat_logprobs
from outrider.server.responses.spans import Spans
from outrider.tokenizer import StreamDecoder, Tokenizer


class TextLogprobs:
    """Those of the tokens that are text, and not thoughts, calls or marks."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer, self._spans, self._decoder = tokenizer, Spans(tokenizer), StreamDecoder(tokenizer)
        self._kept: deque[tuple[int, TokenLogprobs]] = deque()  # with where each begins, in characters of the text
        self._decoded = self._written = 0  # characters

    def note(self, tokens: Sequence[TokenLogprobs]) -> None:
        """Keeps those of the next tokens."""
        for found in tokens:
            is_text = self._spans.next(found.token) == "text" and found.token not in self._tokenizer.hidden
            if is_text:
                self._kept.append((self._begin(found.token), found))
            else:
                self._decoded += len(self._decoder.flush())  # a mark ends an incomplete character

    def written(self, text: str) -> list[ChatTokenLogprob]:
        """Those of the tokens that begin in the next characters of the text."""
        self._written += len(text)
        found = []
        while self._kept and self._kept[0][0] < self._written:
            found.append(self._kept.popleft()[1])
        return chat_logprobs(self._tokenizer, found).content

    def _begin(self, token: int) -> int:
        """Where the token's text begins; for one that goes on with a character, where that begins."""
        text, alone = self._decoder.push(token), StreamDecoder(self._tokenizer).push(token)
        before = len(text) - len(alone) if text.endswith(alone) else 0  # what is left of an incomplete character
        begin, self._decoded = self._decoded + before, self._decoded + len(text)
        return begin
