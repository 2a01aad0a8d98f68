"""A folder and a GGUF file of the same weights: the same ids, ends, template, suppressed tokens and sampling defaults.

Each file says it in its own way, as converters and publishers do: which end tokens it names, whether it calls for BOS.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from chat.formats import CONTROL, GEMMA3, GEMMA4
from tiny_checkpoints import VOCAB, Tiny, gguf_tensors, gguf_writer
from tokenizers import AddedToken, Tokenizer, models, normalizers, processors

from outrider import LLM, SamplingParams

MERGES = [("▁", "t"), ("h", "e"), ("▁t", "he"), ("i", "n"), ("l", "l"), ("|", ">"), ("<", "|"), ("\n", "\n")]
LETTERS = sorted({*"▁\nabcdefghijklmnopqrstuvwxyzTHO<>|_.:,{}"})
WORDS = [*CONTROL, *(f"<0x{byte:02X}>" for byte in range(256)), *LETTERS, *map("".join, MERGES)]
WORDS += [f"§{number}" for number in range(VOCAB - len(WORDS))]  # no text has them
TEXTS = ["the hill", "", "  Hello, ▁ <eos>\n\n", "<|turn>user\nthin<turn|>", "Grüße <start_of_turn>", "<bos>x"]
SUPPRESSED = [300, 299]
MESSAGES = [{"role": "user", "content": "the hill <eos>"}]
FAMILIES = {"gemma3": ("llama", GEMMA3, "<end_of_turn>"), "gemma4-e2b": ("gemma4", GEMMA4, "<turn|>")}


def save_folder_of(source: Path, folder: Path, variant: str, *, it: bool) -> Path:
    """As on the hub: the -it models list several end tokens in generation_config.json."""
    _, template, turn = FAMILIES[variant]
    made = Tokenizer(models.BPE({word: i for i, word in enumerate(WORDS)}, MERGES, byte_fallback=True))
    made.normalizer = normalizers.Replace(" ", "▁")
    made.add_special_tokens([AddedToken(word, normalized=False) for word in CONTROL])
    bos = ("<bos>", CONTROL.index("<bos>"))
    made.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[bos])
    for file in source.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    made.save(str(folder / "tokenizer.json"))
    generation = {"do_sample": True, "top_k": 64, "top_p": 0.95, "eos_token_id": [1, WORDS.index(turn)] if it else 1}
    if variant != "gemma3":
        generation |= {"temperature": 1.0, "suppress_tokens": SUPPRESSED}
    (folder / "generation_config.json").write_text(json.dumps(generation))
    tokens = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}
    (folder / "tokenizer_config.json").write_text(json.dumps({**tokens, "add_bos_token": True}))
    if it:
        (folder / "chat_template.jinja").write_text(template)
    return folder


def save_file_of(tiny: Tiny, path: Path, variant: str, *, it: bool) -> Path:
    """As converters write it: one end token, that of a turn for the -it models, and no call for BOS."""
    algorithm, template, turn = FAMILIES[variant]
    writer = gguf_writer(tiny.model.config, path)
    for key in [key for key in writer.kv_data[0] if key.startswith("tokenizer.")]:
        del writer.kv_data[0][key]
    joined = {"".join(merge): rank for rank, merge in enumerate(MERGES)}
    kinds = [3 if word in CONTROL else 6 if word.startswith("<0x") else 1 for word in WORDS]
    writer.add_tokenizer_model(algorithm)
    writer.add_token_list(WORDS)
    writer.add_token_types(kinds)
    writer.add_token_scores([-float(joined.get(word, 1000)) for word in WORDS])
    if algorithm == "gemma4":
        writer.add_token_merges([" ".join(merge) for merge in MERGES])
        writer.add_array("tokenizer.ggml.suppress_tokens", SUPPRESSED)
    writer.add_bos_token_id(WORDS.index("<bos>"))
    writer.add_eos_token_id(WORDS.index(turn if it else "<eos>"))
    writer.add_pad_token_id(WORDS.index("<pad>"))
    writer.add_add_bos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_int32("general.sampling.top_k", 64)
    writer.add_float32("general.sampling.top_p", 0.95)
    if it:
        writer.add_chat_template(template)
    for name, values in gguf_tensors(tiny.model):
        writer.add_tensor(name, np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("it", [False, True], ids=["base", "it"])
@pytest.mark.parametrize("variant", FAMILIES)
def test_they_are_the_same_model(variant: str, it: bool, tiny: Callable[[str], Tiny], tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    sources = (
        save_folder_of(tiny(variant).folder, tmp_path / "folder", variant, it=it),
        save_file_of(tiny(variant), tmp_path / "model.gguf", variant, it=it),
    )
    folder, file = (LLM(source, drafter=None, threads=2, context=128) for source in sources)
    assert folder.config == file.config
    ends = {WORDS[token] for token in folder.config.end_token_ids}
    assert ends == {"<eos>", "<end_of_turn>", "<turn|>", "<|tool_response>"}
    assert folder.config.suppressed.always == (() if variant == "gemma3" else tuple(sorted(SUPPRESSED)))
    for text in TEXTS:
        for parse_special in (False, True):
            ids = [llm.tokenizer.encode(text, parse_special=parse_special) for llm in (folder, file)]
            assert ids[0] == ids[1]
            assert ids[0][0] == WORDS.index("<bos>")
            assert folder.tokenizer.decode(ids[0]) == file.tokenizer.decode(ids[1])
    one, other = folder.parts, file.parts
    assert one.sampling == other.sampling
    assert one.sampling["temperature"] == 1.0
    if it:
        assert one.chat is not None
        assert other.chat is not None
        assert one.chat.source == other.chat.source
        assert one.prompts.conversation(MESSAGES) == other.prompts.conversation(MESSAGES)
    else:
        assert one.chat is other.chat is None
    params = SamplingParams(max_tokens=24, temperature=1.0, seed=3)
    answers = [llm.generate(["the hill"], params)[0] for llm in (folder, file)]
    assert answers[0].token_ids == answers[1].token_ids
    assert answers[0].finish_reason == answers[1].finish_reason
