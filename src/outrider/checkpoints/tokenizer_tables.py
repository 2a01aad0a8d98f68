"""The tokenizer as tables, the way a GGUF file carries it."""

from __future__ import annotations

from dataclasses import dataclass

from outrider.arrays import Floats, Ints


@dataclass(frozen=True)
class TokenizerTables:
    """A vocabulary with what is needed to rebuild its tokenizer.

    `tokens[i]` is the text of id i. `scores` (vocab,) float32 and `token_types` (vocab,) int32 follow GGUF: 1 normal,
    2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte. `merges` ("left right" per entry) belong to BPE
    vocabularies. `model` is the file's own word for the algorithm: "llama" (SentencePiece with scores) or "gemma4"
    (BPE with merges) are Gemma's.
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
