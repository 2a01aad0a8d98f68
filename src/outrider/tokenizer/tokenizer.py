"""The tokenizer of a checkpoint."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable
from pathlib import Path

import tokenizers

from outrider.checkpoints.tokenizer_tables import TokenizerTables
from outrider.errors import CheckpointError, UsageError
from outrider.tokenizer.build import SPACE, tokenizer_from_tables

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class Tokenizer:
    """Text to ids and back.

    Args:
        inner: a byte-fallback BPE tokenizer as Gemma's are.
        bos_token_id: put in front of a text when asked for.
        add_bos: whether a text begins with it at all.
    """

    def __init__(self, inner: tokenizers.Tokenizer, bos_token_id: int | None, *, add_bos: bool) -> None:
        self._inner = inner
        self._lock = threading.Lock()  # `encode_special_tokens` is a setting of the whole tokenizer
        self._bos = [bos_token_id] if add_bos and bos_token_id is not None else []
        self._special = {
            number: token.content for number, token in inner.get_added_tokens_decoder().items() if token.special
        }
        self._verbatim = {
            number: token.content for number, token in inner.get_added_tokens_decoder().items() if not token.special
        }
        self._pieces: dict[int, bytes] = {}
        self.vocab_size = inner.get_vocab_size()

    @classmethod
    def from_tables(cls, tables: TokenizerTables) -> Tokenizer:
        """From a GGUF's tables. Raises CheckpointError if they are of no kind known here."""
        return cls(tokenizer_from_tables(tables), tables.bos_token_id, add_bos=tables.add_bos)

    @classmethod
    def from_file(cls, path: Path) -> Tokenizer:
        """From a tokenizer.json. Raises CheckpointError if it cannot be read or is not Gemma's kind."""
        try:
            inner = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception
            raise CheckpointError(
                f"is not a tokenizer.json that can be read ({error})", path=path, remedy="Download the checkpoint again"
            ) from error
        if not isinstance(inner.model, tokenizers.models.BPE) or not inner.model.byte_fallback:
            raise CheckpointError(
                "is not a tokenizer of Gemma's kind (BPE with byte fallback)",
                path=path,
                remedy="Use the tokenizer.json that belongs to the checkpoint",
            )
        bos = inner.token_to_id("<bos>")
        return cls(inner, bos, add_bos=True)

    def encode(self, text: str, *, add_bos: bool = True, parse_special: bool = False) -> list[int]:
        """The ids of a text.

        Args:
            add_bos: begin with the BOS token, if the model is used with one.
            parse_special: read `<eos>` and the like as the tokens they name, not as the text they are.
        """
        with self._lock:
            self._inner.encode_special_tokens = not parse_special
            ids: list[int] = self._inner.encode(text, add_special_tokens=False).ids
        return [*self._bos, *ids] if add_bos else ids

    def decode(self, ids: Iterable[int], *, skip_special: bool = True) -> str:
        """The text of ids; bytes that form no character become U+FFFD. Raises UsageError for an id out of range."""
        return b"".join(self.piece(token, skip_special=skip_special) for token in ids).decode("utf-8", "replace")

    def piece(self, token: int, *, skip_special: bool = True) -> bytes:
        """The UTF-8 bytes that one token stands for; a character may be spread over several tokens."""
        if token in self._special:
            return b"" if skip_special else self._special[token].encode()
        known = self._pieces.get(token)
        if known is None:
            known = self._pieces[token] = self._bytes_of(token)
        return known

    def _bytes_of(self, token: int) -> bytes:
        if token in self._verbatim:
            return self._verbatim[token].replace(SPACE, " ").encode()
        text = self._inner.id_to_token(token) if 0 <= token < 2**32 else None
        if text is None:
            raise UsageError(f"token id {token} is outside the vocabulary of {self.vocab_size}")
        byte = _BYTE.fullmatch(text)
        return bytes([int(byte[1], 16)]) if byte else text.replace(SPACE, " ").encode("utf-8", "surrogatepass")


def open_tokenizer(source: TokenizerTables | Path) -> Tokenizer:
    """The tokenizer that a checkpoint came with.

    Raises:
        CheckpointError: it is of no kind known here, or damaged.
    """
    return Tokenizer.from_file(source) if isinstance(source, Path) else Tokenizer.from_tables(source)
