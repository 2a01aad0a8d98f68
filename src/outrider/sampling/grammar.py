"""The response format of an answer: a JSON schema, a regular expression or a grammar."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from outrider.errors import UsageError

MAX_GRAMMAR_BYTES = 256 << 10
"""Longest text of a grammar or schema."""


@dataclass(frozen=True)
class Grammar:
    """A constraint on the text of an answer; see `SamplingParams.grammar`.

    It is compiled, and so fully checked, when a model gets it.

    Args:
        kind: how `text` is written: "json_schema", "regex" (Rust's syntax, matched against the whole answer) or "lark"
            (the variant of Lark's that llguidance reads).

    Raises:
        UsageError: the text is empty, or longer than `MAX_GRAMMAR_BYTES`.
    """

    kind: Literal["json_schema", "regex", "lark"]
    text: str

    def __post_init__(self) -> None:
        if not self.text:
            raise UsageError(f"the {self.what} is empty: leave it out for an unconstrained answer")
        try:
            size = len(self.text.encode())
        except UnicodeEncodeError as error:
            raise UsageError(f"the {self.what} holds half a surrogate pair, which no text can") from error
        if size > MAX_GRAMMAR_BYTES:
            raise UsageError(f"the {self.what} has {size} bytes, more than {MAX_GRAMMAR_BYTES}: make it smaller")

    @classmethod
    def json_object(cls) -> Grammar:
        """Any JSON object."""
        return cls.json_schema({"type": "object"})

    @classmethod
    def json_schema(cls, schema: Mapping[str, Any] | bool) -> Grammar:
        """JSON that a schema allows.

        Raises:
            UsageError: it cannot be written as JSON, or is too long.
        """
        try:
            return cls("json_schema", json.dumps(schema, ensure_ascii=False))
        except (TypeError, ValueError, RecursionError) as error:
            raise UsageError(f"the JSON schema is no JSON ({error})") from error

    @classmethod
    def regex(cls, pattern: str) -> Grammar:
        """Text that a regular expression matches from end to end."""
        return cls("regex", pattern)

    @classmethod
    def lark(cls, text: str) -> Grammar:
        """Text of a grammar's rule `start`."""
        return cls("lark", text)

    @property
    def what(self) -> str:
        """Its kind, for a sentence."""
        return {"json_schema": "JSON schema", "regex": "regex", "lark": "grammar"}[self.kind]
