"""What is known of each token of an answer, as OpenAI's API has it: its text, its chance, and the likeliest others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from outrider.sampling.logprobs import TokenLogprobs
from outrider.tokenizer import StreamDecoder, Tokenizer


class TokenPlaces:
    """Writes the `logprobs` of one answer. However its tokens come, a few at a time or all, they are the same.

    Args:
        chat: the chat route's shape, else the completion route's.
    """

    def __init__(self, tokenizer: Tokenizer, *, chat: bool) -> None:
        self._tokenizer, self._chat = tokenizer, chat
        self._decoder = StreamDecoder(tokenizer)
        self._length = 0  # characters that the tokens so far have made certain

    def next(self, places: Sequence[TokenLogprobs]) -> dict[str, Any]:
        """Those of the next tokens."""
        if self._chat:
            return {"content": [self._place(place) for place in places], "refusal": None}
        return {
            "tokens": [self._name(place.token) for place in places],
            "token_logprobs": [_finite(place.logprob) for place in places],
            # Where two tokens have one text, it stands for the likelier.
            "top_logprobs": [
                {self._name(token): _finite(logprob) for token, logprob in reversed(place.top)} for place in places
            ],
            "text_offset": [self._offset(place.token) for place in places],
        }

    def _offset(self, token: int) -> int:
        """Where the token's text begins; of a part of a character, where the character does."""
        offset = self._length
        self._length += len(self._decoder.push(token))
        return offset

    def _name(self, token: int) -> str:
        """The token's text; what is no whole characters, as OpenAI names it: `bytes:\\xf0\\x9f`."""
        data = self._tokenizer.piece(token, skip_special=False)
        try:
            return data.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)

    def _place(self, place: TokenLogprobs) -> dict[str, Any]:
        top = [self._token(token, logprob) for token, logprob in place.top]
        return {**self._token(place.token, place.logprob), "top_logprobs": top}

    def _token(self, token: int, logprob: float) -> dict[str, Any]:
        data = self._tokenizer.piece(token, skip_special=False)
        return {"token": data.decode("utf-8", "replace"), "logprob": _finite(logprob), "bytes": list(data)}


def _finite(logprob: float) -> float:
    """JSON has no infinity; OpenAI's own value for "never" is -9999."""
    return max(logprob, -9999.0)
