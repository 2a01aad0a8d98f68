"""A chat model that says what a script demands: the engine, the server and the prompt format are real, the choice of
each token is not. Clients can so be taken through tools, thoughts and edits without the weights of a large model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import transformers
from tiny_checkpoints import VARIANTS, randomized, save_folder

from outrider import LLM
from outrider.arrays import Floats
from outrider.checkpoints.demo import demo_path
from outrider.checkpoints.gguf.reader import open_gguf
from outrider.engine import request as engine_request
from outrider.sampling.choice import TokenChooser
from outrider.tokenizer.build import encoders_from_tables

CONTEXT = 65536
TURN, TURN_END, QUOTE = "<|turn>", "<turn|>", '<|"|>'
_ENDS = (1, 106)
_MARKS = ("<|tool>", "<tool|>", "<|tool_call>", "<tool_call|>", "<|tool_response>", "<tool_response|>", QUOTE)
_THOUGHT = ("<|channel>", "<channel|>", "<|think|>")

TEMPLATE = r"""
{{- bos_token -}}
{%- if tools or enable_thinking -%}
  {{- "<|turn>system\n" -}}
  {%- if enable_thinking -%}<|think|>{%- endif -%}
  {%- for tool in tools or [] -%}
    <|tool>{{ tool.function.name }}<tool|>
  {%- endfor -%}
  {{- "<turn|>\n" -}}
{%- endif -%}
{%- for m in messages -%}
  {{- "<|turn>" + ("model" if m.role == "assistant" else m.role) + "\n" -}}
  {%- if m.reasoning_content -%}<|channel>thought{{ "\n" + m.reasoning_content + "\n" }}<channel|>{%- endif -%}
  {%- for call in m.tool_calls or [] -%}
    <|tool_call>call:{{ call.function.name }}{{ call.function.arguments | tojson }}<tool_call|>
  {%- endfor -%}
  {%- if m.role == "tool" -%}
    <|tool_response>{{ m.content }}<tool_response|>
  {%- else -%}
    {{- m.content or "" -}}
  {%- endif -%}
  {{- "<turn|>\n" -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ "<|turn>model\n" }}{%- endif -%}
"""
"""Gemma 4's control tokens, without the exact layout of its published template."""


def answer_to(prompt: str) -> str:
    """What the stand-in says next: a tool call while the last turn is the user's and its tool is offered, then text."""
    turns = re.findall(r"<\|turn>(\w+)\n(.*?)<turn\|>", prompt, re.DOTALL)
    offered = re.findall(r"<\|tool>(.*?)<tool\|>", prompt)
    role, last = turns[-1]
    if role == "tool":
        result = last.removeprefix("<|tool_response>").removesuffix("<tool_response|>").strip()
        return f"The tool says: {result[:200]}"
    for words, tool, arguments in CALLS:
        if words in last and tool in offered:
            return call(tool, arguments)
    answer = next((text for words, text in ANSWERS if words in last), "Hello from the stand-in.")
    thought = "<|channel>thought\nThe user wrote to me.\n<channel|>" if "<|think|>" in prompt else ""
    return thought + answer


def call(tool: str, arguments: dict[str, Any]) -> str:
    """A call as Gemma 4 writes it, its keys in order."""
    return f"<|tool_call>call:{tool}{_written(arguments)}<tool_call|>"


def _written(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_written(item)}" for key, item in sorted(value.items())) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_written, value)) + "]"
    return f"{QUOTE}{value}{QUOTE}" if isinstance(value, str) else json.dumps(value)


CALLS: list[tuple[str, str, dict[str, Any]]] = [
    ("weather", "get_weather", {"city": "Oslo"}),
    ("Create hello.txt", "exec_command", {"cmd": "echo hello > hello.txt"}),
    ("Create hello.txt", "shell", {"command": ["bash", "-lc", "echo hello > hello.txt"]}),
    *(("Extract", tool, {"name": "Ada", "age": 36}) for tool in ("Person", "final_result", "json")),
]
"""Words of the user's, the tool that then is called if it is offered, and its arguments."""

ANSWERS = [
    ("Extract", '{"name": "Ada", "age": 36}'),
    (
        "Make greet say goodbye",
        'greeting.py\n```python\n<<<<<<< SEARCH\n    return "hello"\n=======\n    return "goodbye"\n'
        ">>>>>>> REPLACE\n```\n",
    ),
]
"""Words of the user's, and the answer."""


def save_stand_in(folder: Path) -> Path:
    """A tiny Gemma 4 checkpoint with the demo's vocabulary, in which unused tokens got Gemma 4's control tokens."""
    tables = open_gguf(demo_path()).tokenizer
    assert tables is not None
    arguments = {**VARIANTS["gemma4-dense"], "vocab_size": len(tables.tokens), "vocab_size_per_layer_input": 0}
    config = transformers.Gemma4TextConfig(**arguments | {"max_position_embeddings": CONTEXT}, eos_token_id=[*_ENDS])
    target = save_folder(randomized(transformers.Gemma4ForCausalLM(config)), folder)
    _, special = encoders_from_tables(tables, frozenset(range(4)))
    (target / "tokenizer.json").write_text(json.dumps(_renamed(json.loads(special.to_str()))), "utf-8")
    (target / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<bos>", "chat_template": TEMPLATE}))
    return target


def _renamed(tokenizer: dict[str, Any]) -> dict[str, Any]:
    names = {"<start_of_turn>": TURN, "<end_of_turn>": TURN_END}
    names |= {f"<unused{number}>": mark for number, mark in enumerate((*_MARKS, *_THOUGHT))}
    vocabulary = tokenizer["model"]["vocab"]
    for old, new in names.items():
        vocabulary[new] = vocabulary.pop(old)
    known = {entry["content"]: entry for entry in tokenizer["added_tokens"]}
    for old, new in names.items():
        entry = known.get(old) or {**known["<bos>"], "id": vocabulary[new]}
        if old not in known:
            tokenizer["added_tokens"].append(entry)
        entry["content"], entry["special"] = new, True
    tokenizer["added_tokens"].sort(key=lambda entry: entry["id"])
    return tokenizer


def follow_script(llm: LLM) -> None:
    """Makes a model say what `answer_to` demands wherever the request's grammar allows it."""
    tokenizer = llm.tokenizer

    class Scripted(TokenChooser):
        needs_logits = True  # type: ignore[assignment]

        def __init__(self, params: Any, prompt: Sequence[int] = (), *more: Any) -> None:
            super().__init__(params, prompt, *more)
            text = b"".join(tokenizer.piece(token, skip_special=False) for token in prompt).decode(errors="replace")
            said = answer_to(text) if TURN in text else "Once upon a time."
            self._start = len(prompt)
            self._script = [*tokenizer.encode(said, add_bos=False, parse_special=True), _ENDS[1]]

        def choose(self, most_likely: int, logits: Floats | None, position: int) -> int | None:
            assert logits is not None
            place = position - self._start
            if place < len(self._script):
                most_likely = self._script[place]
                logits[most_likely] = np.float32(1e6)
            return super().choose(most_likely, logits, position)

    engine_request.TokenChooser = Scripted  # type: ignore[misc]
