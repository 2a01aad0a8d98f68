"""Log-probabilities in the forms of the completions and the chat route."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel

from outrider.sampling.logprobs import TokenLogprobs
from outrider.tokenizer import StreamDecoder, Tokenizer


class CompletionLogprobs(BaseModel):
    """One entry per token. `text_offset`: where its text begins in the answer, in characters."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class CompletionLogprobsWriter:
    """Writes the log-probabilities of one answer; however its tokens are cut into pieces, the entries are the same."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = StreamDecoder(tokenizer)
        self._length = 0  # characters decoded so far

    def next(self, tokens: Sequence[TokenLogprobs]) -> CompletionLogprobs:
        """Those of the next tokens."""
        return CompletionLogprobs(
            tokens=[self._name(entry.token) for entry in tokens],
            token_logprobs=[_finite(entry.logprob) for entry in tokens],
            # Of two tokens with the same text, the more likely one.
            top_logprobs=[
                {self._name(token): _finite(logprob) for token, logprob in reversed(entry.top)} for entry in tokens
            ],
            text_offset=[self._offset(entry.token) for entry in tokens],
        )

    def _offset(self, token: int) -> int:
        """Where the token's text begins; for a part of a character, where the character begins."""
        offset = self._length
        self._length += len(self._decoder.push(token))
        return offset

    def _name(self, token: int) -> str:
        """The token's text; bytes that are not whole characters as OpenAI writes them: `bytes:\\xf0\\x9f`."""
        data = self._tokenizer.piece(token, skip_special=False)
        try:
            return data.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


class TopLogprob(BaseModel):
    """A token, and its bytes."""

    token: str
    logprob: float
    bytes: list[int]


class ChatTokenLogprob(TopLogprob):
    """A token of the answer, and the most likely tokens in its position."""

    top_logprobs: list[TopLogprob]


class ChatLogprobs(BaseModel):
    """One entry per token."""

    content: list[ChatTokenLogprob]
    refusal: None = None


def chat_logprobs(tokenizer: Tokenizer, tokens: Sequence[TokenLogprobs]) -> ChatLogprobs:
    """In the form of the chat route."""

    def entry(token: int, logprob: float) -> TopLogprob:
        data = tokenizer.piece(token, skip_special=False)
        return TopLogprob(token=data.decode("utf-8", "replace"), logprob=_finite(logprob), bytes=list(data))

    def with_top(found: TokenLogprobs) -> ChatTokenLogprob:
        own = entry(found.token, found.logprob)
        return ChatTokenLogprob(
            token=own.token, logprob=own.logprob, bytes=own.bytes, top_logprobs=[entry(*top) for top in found.top]
        )

    return ChatLogprobs(content=[with_top(found) for found in tokens])


def _finite(logprob: float) -> float:
    """JSON has no infinity; OpenAI writes -9999."""
    return max(logprob, -9999.0)
