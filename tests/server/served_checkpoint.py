"""A tiny checkpoint as a server is given one: folder, tokenizer, chat template, and an MTP drafter."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

from server.templates import GEMMA
from tiny_checkpoints import VOCAB, make_assistant, make_model, save_folder
from tokenizers import AddedToken, Tokenizer, models, normalizers

_CONTROL = ("<pad>", "<eos>", "<bos>", "<|tool_call>", "<tool_call|>", '<|"|>', "<|channel>", "<channel|>")
_LETTERS = "abcdez"


def save_served(folder: Path, variant: str = "gemma4-e2b") -> tuple[Path, Path]:
    """A random model that can write any text and knows tools and thoughts, and its drafter: (model, drafter)."""
    model = make_model(variant)
    target = save_folder(model, folder / variant)
    drafter = save_folder(make_assistant(model.config.get_text_config(), ordered=True, seed=1), folder / "drafter")
    _save_tokenizer(target / "tokenizer.json")
    (target / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<bos>", "chat_template": GEMMA}))
    return target, drafter


def _save_tokenizer(path: Path) -> None:
    """Control tokens, every byte, and words of a few letters: a random model's answers are full of half characters,
    and of texts that begin as a stop text does."""
    pairs = list(product(_LETTERS, _LETTERS))
    merges = [*pairs, *(("▁", letter) for letter in _LETTERS)]
    words = [*_CONTROL, *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *_LETTERS, *map("".join, merges)]
    words += map("".join, product(("▁", "1", "{", '"'), map("".join, pairs)))
    words += map("".join, product(_LETTERS, _LETTERS, _LETTERS))
    known = {word: token for token, word in enumerate(words[:VOCAB])}
    made = Tokenizer(models.BPE(known, merges, byte_fallback=True))
    made.normalizer = normalizers.Replace(" ", "▁")
    made.add_special_tokens([AddedToken(word, normalized=False) for word in _CONTROL])
    made.save(str(path))
