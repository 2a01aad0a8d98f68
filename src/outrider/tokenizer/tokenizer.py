"""A checkpoint's tokenizer."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from outrider.checkpoints.tokenizer_tables import TokenizerTables
from outrider.errors import CheckpointError, UsageError
from outrider.tokenizer.build import SPACE, encoders_from_tables
from outrider.tokenizer.encoders import Encoders, shared
from outrider.tokenizer.json_file import bos_of, encoders_from_file
from outrider.tokenizer.merge_cache import digest_of
from outrider.tokenizer.token_kinds import CONTROL, UNKNOWN, USER_DEFINED, is_mark, kinds_of
from outrider.tokenizer.utf8 import text_of, without_surrogates

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class Tokenizer:
    """Text to ids and back. Safe to use from several threads.

    Args:
        plain: a byte-fallback BPE tokenizer, as Gemma's are, that encodes control tokens in a text as text.
        special: the same, but it encodes them as tokens.
        texts: id -> text as stored in the vocabulary, for all ids.
        hidden: the ids of control tokens (`<bos>`, `<end_of_turn>`), which decoding leaves out.
        bos_token_id: the first token of a text; None for none.
        space_prefix: encode a text as if a space stood before it.
        marks_are_spaces: encode U+2581 as a space. SentencePiece stores spaces as U+2581 and cannot tell them apart.
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
            # The library caches the tokens of words. Gemma's tokenizer treats a whole text as one word, so the cache
            # would hold 10,000 prompts, few of which repeat.
            encoder.model._resize_cache(0)
        self._bos = [] if bos_token_id is None else [bos_token_id]
        self._space_prefix = space_prefix
        self._marks_are_spaces = marks_are_spaces
        self._pieces: dict[int, bytes] = {}
        self._special_ids: dict[str, int] | None = None
        self._longest = 0
        self.encoders: Encoders | None = None
        """Those of the checkpoint: others that open it share them as long as anyone refers to them."""
        self.vocab_size = max(texts, default=-1) + 1

    @classmethod
    def from_tables(cls, tables: TokenizerTables, *, written: str = "") -> Tokenizer:
        """From a GGUF file's tables. Raises CheckpointError if they are of an unknown algorithm, or incomplete.

        Args:
            written: what the chat template writes itself: added tokens in it are control tokens.
        """
        kinds = kinds_of(tables)
        marks = [t for t in np.flatnonzero(kinds == USER_DEFINED).tolist() if is_mark(tables.tokens[t], written)]
        hidden = frozenset([*np.flatnonzero((kinds == CONTROL) | (kinds == UNKNOWN)).tolist(), *marks])

        def build() -> Encoders:
            return Encoders(*encoders_from_tables(tables, hidden), dict(enumerate(tables.tokens)), hidden)

        key = digest_of(tables) + repr((tables.unknown_token_id, sorted(hidden))).encode()
        return cls._of(
            shared(key, build),
            bos_token_id=tables.bos_token_id if tables.add_bos else None,
            space_prefix=tables.add_space_prefix,
            marks_are_spaces=tables.model == "llama",
        )

    @classmethod
    def from_file(cls, path: Path, *, written: str = "") -> Tokenizer:
        """From a tokenizer.json. Raises CheckpointError if it cannot be read, or is not byte-fallback BPE.

        Args:
            written: as for `from_tables`.
        """

        def build() -> Encoders:
            plain, special, hidden = encoders_from_file(path, written)
            return Encoders(plain, special, {token: text for text, token in special.get_vocab().items()}, hidden)

        encoders = shared(_file_digest(path) + written.encode("utf-8", "surrogatepass"), build)
        return cls._of(encoders, bos_token_id=bos_of(encoders.special))

    @classmethod
    def _of(cls, encoders: Encoders, **options: Any) -> Tokenizer:
        made = cls(encoders.plain, encoders.special, texts=encoders.texts, hidden=encoders.hidden, **options)
        made.encoders = encoders
        return made

    def pad(self, vocabulary: int) -> None:
        """Ids below `vocabulary` that have no text get an empty one: a model may have logits for ids that its
        tokenizer lacks, and choose them."""
        missing = {token: "" for token in range(vocabulary) if token not in self._texts}
        self._texts = {**self._texts, **missing}

    def encode(self, text: str, *, add_bos: bool = True, parse_special: bool = False) -> list[int]:
        """The ids of a text. A lone surrogate is encoded as U+FFFD.

        Args:
            add_bos: begin with the BOS token, if the model has one.
            parse_special: encode `<eos>` and other control tokens in the text as tokens, not as text.
        """
        if self._space_prefix and text:
            text = " " + text
        ids = self._ids(self._special if parse_special else self._plain, text)
        return [*self._bos, *ids] if add_bos else ids

    def encode_marked(self, parts: Sequence[str]) -> list[int]:
        """The ids of texts with control tokens between them. No BOS is added.

        Args:
            parts: text, control token, text, ..., text. A control token's text within a text is text.
        """
        ids: list[int] = []
        for number, part in enumerate(parts):
            if number % 2:
                ids.append(self.control_ids[part])
            elif number and self._space_prefix:
                ids += self._ids(self._plain, part)
            else:
                ids += self.encode(part, add_bos=False)
        return ids

    def _ids(self, encoder: tokenizers.Tokenizer, text: str) -> list[int]:
        text = without_surrogates(text)
        if self._marks_are_spaces:
            text = text.replace(SPACE, " ")
        ids: list[int] = encoder.encode(text, add_special_tokens=False).ids
        return ids

    def fewest_tokens(self, text: str) -> int:
        """A lower bound on the number of tokens of a text. Encoding takes some hundred times the text's memory; this
        takes none."""
        if not self._longest:
            self._longest = max((len(known) for known in self._texts.values()), default=1)
        return -(-len(text) // self._longest)

    def decode(self, ids: Iterable[int], *, skip_special: bool = True) -> str:
        """The text of ids; each byte that is part of no character becomes U+FFFD.

        Raises:
            UsageError: an id is outside the vocabulary.
        """
        return text_of(b"".join(self.piece(token, skip_special=skip_special) for token in ids))

    def piece(self, token: int, *, skip_special: bool = True) -> bytes:
        """The UTF-8 bytes of one token; a character may be spread over several tokens.

        Raises:
            UsageError: the id is outside the vocabulary.
        """
        if skip_special and token in self.hidden:
            return b""
        known = self._pieces.get(token)
        if known is None:
            known = self._pieces[token] = self._bytes_of(token)
        return known

    @property
    def control_ids(self) -> Mapping[str, int]:
        """The id of each control token, by its text."""
        if self._special_ids is None:
            self._special_ids = {self._texts[token]: token for token in self.hidden if self._texts.get(token)}
        return self._special_ids

    def id_of(self, text: str) -> int | None:
        """The id of the token with this text; None if there is none."""
        token: int | None = self._special.token_to_id(text)
        return token

    def special_tokens(self, texts: Iterable[str]) -> frozenset[int]:
        """The ids of the control tokens with these texts; other texts are skipped."""
        return frozenset(self.control_ids[text] for text in texts if text in self.control_ids)

    def _bytes_of(self, token: int) -> bytes:
        text = self._texts.get(token)
        if text is None:
            raise UsageError(f"token id {token} is outside the vocabulary of {self.vocab_size} tokens")
        byte = _BYTE.fullmatch(text)
        return bytes([int(byte[1], 16)]) if byte else text.replace(SPACE, " ").encode("utf-8", "replace")


def _file_digest(path: Path) -> bytes:
    """Tells tokenizer.json files apart; of one that cannot be read, nothing."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return b""


def open_tokenizer(source: TokenizerTables | Path, *, path: Path | None = None, written: str = "") -> Tokenizer:
    """The tokenizer of a checkpoint.

    Args:
        source: a GGUF file's tables, or the path of a tokenizer.json.
        path: the GGUF file, for errors.
        written: what the chat template writes itself (`ChatTemplate.written`): added tokens in it are control tokens.

    Raises:
        CheckpointError: the tokenizer is of an unknown algorithm, or damaged.
    """
    if isinstance(source, Path):
        return Tokenizer.from_file(source, written=written)
    try:
        return Tokenizer.from_tables(source, written=written)
    except CheckpointError as error:
        raise CheckpointError(error.problem, path=path, remedy=error.remedy) from error
