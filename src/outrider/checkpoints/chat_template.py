"""Where checkpoints keep their chat template and the special tokens that it may write, as transformers finds them."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from outrider.checkpoints.hf.json_file import read_json
from outrider.checkpoints.tokenizer_tables import TokenizerTables
from outrider.errors import CheckpointError

_log = logging.getLogger("outrider.checkpoints")


@dataclass(frozen=True)
class StoredTemplate:
    """A chat template's Jinja source, and the variables that it reads special tokens from ("bos_token", ...)."""

    source: str
    tokens: Mapping[str, str]


def special_tokens(tokenizer: TokenizerTables | Path) -> Mapping[str, str]:
    """The texts of special tokens by the variables that templates read them from. Raises as `stored_template`."""
    if isinstance(tokenizer, TokenizerTables):
        return tokenizer.specials
    config = read_json(tokenizer.with_name("special_tokens_map.json")) | _tokenizer_config(tokenizer)
    found = {key: value for key, value in config.items() if key.endswith("_token")}
    for of_model in ("model_specific_special_tokens", "extra_special_tokens"):
        found |= named if isinstance(named := config.get(of_model), dict) else {}
    texts = {key: value.get("content") if isinstance(value, dict) else value for key, value in found.items()}
    return {"bos_token": "<bos>"} | {key: text for key, text in texts.items() if isinstance(text, str)}


def stored_template(tokenizer: TokenizerTables | Path) -> StoredTemplate | None:
    """The chat template of a checkpoint; None if it has none.

    Args:
        tokenizer: a GGUF file's tables, or the path of a tokenizer.json, beside which the template is.

    Raises:
        CheckpointError: a tokenizer_config.json or special_tokens_map.json that cannot be read. Of a template that
            cannot be read the source is one that refuses every conversation: completions need none.
    """
    if isinstance(tokenizer, TokenizerTables):
        source = tokenizer.chat_template
    else:
        config = _tokenizer_config(tokenizer)
        try:
            source = one_source(_templates(tokenizer.parent, config))
        except (CheckpointError, OSError, UnicodeDecodeError) as error:
            source = refusing(str(error))
    return None if source is None else StoredTemplate(source, special_tokens(tokenizer))


def _tokenizer_config(tokenizer: Path) -> dict[str, Any]:
    return read_json(tokenizer.with_name("tokenizer_config.json"))


def one_source(named: Mapping[str, Any]) -> str | None:
    """One source of templates by name: with tools the one named "tool_use", else "default"; None if there are none."""
    if not named:
        return None
    if "default" not in named:
        return refusing(f"of its chat templates, {', '.join(sorted(named))}, none is the default")
    if wrong := [name for name, source in named.items() if not isinstance(source, str)]:
        return refusing(f"its chat template {wrong[0]} is not a text")
    sources = {name: source.removesuffix("\n") for name, source in named.items()}
    if "tool_use" not in sources:
        return str(named["default"])
    # "+" keeps the spaces before a tag, and each line end here is removed by the tag before it.
    return f"{{% if tools %}}\n{sources['tool_use']}{{%+ else %}}\n{sources['default']}{{%+ endif %}}"


_REFUSAL = "{{ raise_exception("


def refusing(problem: str) -> str:
    """A template that refuses every conversation with this sentence, which is logged too."""
    _log.warning("Only completions work: %s", problem)
    return f"{_REFUSAL}{json.dumps(problem)}) }}}}"


def is_refusing(source: str) -> bool:
    """Whether a template refuses every conversation, as those of `refusing` do."""
    return source.startswith(_REFUSAL)


def _templates(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """A folder's templates by name: chat_template.jinja, else tokenizer_config.json's, else chat_template.json's."""
    files = {path.stem: path for path in (folder / "additional_chat_templates").glob("*.jinja")}
    if (folder / "chat_template.jinja").is_file():
        files["default"] = folder / "chat_template.jinja"
    if files:
        return {name: path.read_text("utf-8") for name, path in files.items()}
    found = config.get("chat_template") or read_json(folder / "chat_template.json").get("chat_template")
    if isinstance(found, list) and all(isinstance(entry, dict) for entry in found):
        return {str(entry.get("name")): entry.get("template") for entry in found}
    return {"default": found} if found else {}
