"""The tokenizer of a checkpoint."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import tokenizers

from outrider.checkpoints.tokenizer_tables import TokenizerTables
from outrider.errors import CheckpointError, UsageError
from outrider.tokenizer.build import SPACE, encoders_from_tables
from outrider.tokenizer.json_file import bos_of, encoders_from_file
from outrider.tokenizer.token_kinds import CONTROL, UNKNOWN, kinds_of
from outrider.tokenizer.utf8 import text_of, without_surrogates

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class Tokenizer:
    """Text to ids and back. Safe to use from several threads.

    Args:
        plain, special: byte-fallback BPE tokenizers as Gemma's are; the first reads control tokens in a text as text,
            the second as tokens.
        texts: id -> text as the vocabulary writes it, for all ids.
        hidden: the ids of control tokens (`<bos>`, `<end_of_turn>`), which have no place in a decoded text.
        bos_token_id: what a text begins with, if with anything.
        space_prefix: put a space in front of a text, as if it began a word.
        marks_are_spaces: U+2581 in a text means a space. SentencePiece writes spaces so and cannot tell them apart.
    """

    def __init__(
        self,
        plain: tokenizers.Tokenizer,
        special: tokenizers.Tokenizer,
        *,
        texts: Mapping[int, str],
        hidden: frozenset[int],
        bos_token_id: int | None,
        space_prefix: bool = False,
        marks_are_spaces: bool = False,
    ) -> None:
        self._plain = plain
        self._special = special
        self._texts = texts
        self.hidden = hidden
        """The ids of control tokens."""
        for encoder in (plain, special):
            # The library keeps the tokens of words that it saw, and to Gemma's tokenizer a whole text is one word: it
            # would keep 10,000 prompts, of which hardly one comes again.
            encoder.model._resize_cache(0)
        self._bos = [] if bos_token_id is None else [bos_token_id]
        self._space_prefix = space_prefix
        self._marks_are_spaces = marks_are_spaces
        self._pieces: dict[int, bytes] = {}
        self._special_ids: dict[str, int] | None = None
        self._longest = 0
        self.vocab_size = max(texts, default=-1) + 1

    @classmethod
    def from_tables(cls, tables: TokenizerTables) -> Tokenizer:
        """From a GGUF's tables. Raises CheckpointError if they are of no kind known here."""
        plain, special = encoders_from_tables(tables)
        kinds = kinds_of(tables)
        return cls(
            plain,
            special,
            texts=dict(enumerate(tables.tokens)),
            hidden=frozenset(np.flatnonzero((kinds == CONTROL) | (kinds == UNKNOWN)).tolist()),
            bos_token_id=tables.bos_token_id if tables.add_bos else None,
            space_prefix=tables.add_space_prefix,
            marks_are_spaces=tables.model == "llama",
        )

    @classmethod
    def from_file(cls, path: Path) -> Tokenizer:
        """From a tokenizer.json. Raises CheckpointError if it cannot be read or is not Gemma's kind."""
        plain, special = encoders_from_file(path)
        added = special.get_added_tokens_decoder()
        return cls(
            plain,
            special,
            texts={token: text for text, token in special.get_vocab().items()},
            hidden=frozenset(token for token, entry in added.items() if entry.special),
            bos_token_id=bos_of(special),
        )

    def encode(self, text: str, *, add_bos: bool = True, parse_special: bool = False) -> list[int]:
        """The ids of a text. Half a surrogate pair, which no text should hold, counts as U+FFFD.

        Args:
            add_bos: begin with the BOS token, if the model is used with one.
            parse_special: read `<eos>` and the like as the tokens they name, not as the text they are.
        """
        text = without_surrogates(text)
        if self._space_prefix and text:
            text = " " + text
        if self._marks_are_spaces:
            text = text.replace(SPACE, " ")
        encoder = self._special if parse_special else self._plain
        ids: list[int] = encoder.encode(text, add_special_tokens=False).ids
        return [*self._bos, *ids] if add_bos else ids

    def fewest_tokens(self, text: str) -> int:
        """A number of tokens that a text has at least, found without encoding it, which takes some hundred times the
        text's memory."""
        if not self._longest:
            self._longest = max((len(known) for known in self._texts.values()), default=1)
        return -(-len(text) // self._longest)

    def decode(self, ids: Iterable[int], *, skip_special: bool = True) -> str:
        """The text of ids; bytes that form no character become U+FFFD.

        Raises:
            UsageError: an id is outside the vocabulary.
        """
        return text_of(b"".join(self.piece(token, skip_special=skip_special) for token in ids))

    def piece(self, token: int, *, skip_special: bool = True) -> bytes:
        """The UTF-8 bytes that one token stands for; a character may be spread over several tokens."""
        if skip_special and token in self.hidden:
            return b""
        known = self._pieces.get(token)
        if known is None:
            known = self._pieces[token] = self._bytes_of(token)
        return known

    def special_tokens(self, texts: Iterable[str]) -> frozenset[int]:
        """The ids of the control tokens with these texts; a text that is none has no id."""
        if self._special_ids is None:
            self._special_ids = {self._texts[token]: token for token in self.hidden if token in self._texts}
        return frozenset(self._special_ids[text] for text in texts if text in self._special_ids)

    def _bytes_of(self, token: int) -> bytes:
        text = self._texts.get(token)
        if text is None:
            raise UsageError(f"token id {token} is outside the vocabulary of {self.vocab_size} tokens")
        byte = _BYTE.fullmatch(text)
        return bytes([int(byte[1], 16)]) if byte else text.replace(SPACE, " ").encode("utf-8", "replace")


def open_tokenizer(source: TokenizerTables | Path, *, path: Path | None = None) -> Tokenizer:
    """The tokenizer that a checkpoint came with.

    Args:
        path: the file that tables were read from, to be named in errors.

    Raises:
        CheckpointError: it is of no kind known here, or damaged.
    """
    if isinstance(source, Path):
        return Tokenizer.from_file(source)
    try:
        return Tokenizer.from_tables(source)
    except CheckpointError as error:
        raise CheckpointError(error.problem, path=path, remedy=error.remedy) from error
