"""A tokenizer as a GGUF file stores it: tables, one entry per token."""

from __future__ import annotations

from dataclasses import dataclass

from outrider.arrays import Floats, Ints


@dataclass(frozen=True)
class TokenizerTables:
    """A vocabulary, and what is needed to rebuild its tokenizer.

    Attributes:
        model: the algorithm by its GGUF name; Gemma's are "llama" (SentencePiece, by scores) and "gemma4" (BPE, by
            merges).
        tokens: the text of each id.
        scores: (vocab,) float32, or None.
        token_types: (vocab,) int32, numbered as in `tokenizer.token_kinds`, or None.
        merges: "left right" per merge, best first, or None.
        add_bos: whether a text begins with the BOS token.
        add_space_prefix: whether a text is tokenized as if a space stood before it.
        chat_template: the Jinja source, or None.
        padding_token_id: None where the file names none.
    """

    model: str
    tokens: list[str]
    scores: Floats | None
    token_types: Ints | None
    merges: list[str] | None
    bos_token_id: int
    eos_token_id: int
    unknown_token_id: int | None
    add_bos: bool
    add_space_prefix: bool
    chat_template: str | None
    padding_token_id: int | None = None

    @property
    def specials(self) -> dict[str, str]:
        """The special tokens' texts by the names that chat templates have for them."""
        ids = {
            "bos_token": self.bos_token_id,
            "eos_token": self.eos_token_id,
            "unk_token": self.unknown_token_id,
            "pad_token": self.padding_token_id,
        }
        return {name: self.tokens[token] for name, token in ids.items() if token is not None}
