"""The response format of a request, in every spelling that is in use, as a grammar."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from outrider import Grammar
from outrider.errors import UsageError
from outrider.sampling.grammar import MAX_GRAMMAR_BYTES
from outrider.server.errors import ApiError
from outrider.server.fields import Fields, Refused

MAX_INTEGER = 2**53 - 1
"""An integer without bounds in a schema gets this one: the largest that all JSON parsers read exactly. Without it, a
model may write digits up to `max_tokens`."""
_ACCEPTED = 'give {"type": "json_schema", "json_schema": {"name": "...", "schema": {...}}}'
_META = re.compile(r"[\\.+*?()|\[\]{}^$#&\-~/]")
_NO_SCHEMAS = ("enum", "const", "default", "examples")
"""Keywords of a schema whose values are data."""

Schema = dict[str, Any] | bool
Text = Annotated[str, Field(min_length=1, max_length=MAX_GRAMMAR_BYTES)]


def _unwrapped(given: Any) -> Any:
    """`json_schema` may be the schema itself."""
    named = not isinstance(given, dict) or "schema" in given or not given.keys() - {"name", "description", "strict"}
    return given if named else {"schema": given}


def _parsed(given: Any) -> Any:
    """vLLM takes a schema as JSON text, too."""
    if not isinstance(given, str):
        return given
    try:
        return json.loads(given)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the schema is not JSON: {error}") from error


class NamedSchema(Fields):
    """The `json_schema` of a response format. It is enforced whether `strict` or not."""

    name: Annotated[str, Field(max_length=64)] = ""
    description: str = ""
    schema_: Annotated[Schema, Field(alias="schema")]
    strict: bool = False


class ResponseFormat(Fields):
    """Text, any JSON object, or JSON that a schema describes."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: Annotated[NamedSchema, BeforeValidator(_unwrapped)] | None = None
    schema_: Annotated[Schema | None, Field(alias="schema")] = None

    def grammar(self) -> Grammar | None:
        """None for text."""
        if self.type == "text":
            return None
        schema = self.json_schema.schema_ if self.json_schema is not None else self.schema_
        if schema is None and self.type == "json_schema":
            raise ApiError(400, f"response_format has no schema: {_ACCEPTED}", param="response_format")
        return json_grammar({"type": "object"} if schema is None else schema)


class StructuredOutputs(Fields):
    """vLLM's."""

    refused: ClassVar[Refused] = {
        "structural_tag": ((), f"use response_format: {_ACCEPTED}"),
        "whitespace_pattern": ((), "use grammar"),
    }
    json_: Annotated[Schema | None, BeforeValidator(_parsed), Field(alias="json")] = None
    json_object: bool = False
    regex: Text | None = None
    choice: list[str] | None = None
    grammar: Text | None = None


class StructuredOutput(Fields):
    """The fields that constrain the answer; at most one of them."""

    response_format: ResponseFormat | None = None
    # outrider's own; `grammar` is llama.cpp's too, whose GBNF is translated.
    grammar: Text | None = None
    regex: Text | None = None
    # llama.cpp's.
    json_schema: Schema | None = None
    # vLLM's, now and before.
    structured_outputs: StructuredOutputs | None = None
    guided_json: Annotated[Schema | None, BeforeValidator(_parsed)] = None
    guided_regex: Text | None = None
    guided_choice: list[str] | None = None
    guided_grammar: Text | None = None

    def constraint(self) -> tuple[str | None, Grammar | None]:
        """The field that constrains the answer, and its grammar; (None, None) without one.

        Raises:
            ApiError: there are several, or a grammar cannot be read.
        """
        outputs = self.structured_outputs or StructuredOutputs()
        nested: Schema | None = {"type": "object"} if outputs.json_object else outputs.json_
        given: list[tuple[str, Any, Callable[[Any], Grammar | None]]] = [
            ("response_format", self.response_format, ResponseFormat.grammar),
            ("grammar", self.grammar, _lark),
            ("regex", self.regex, Grammar.regex),
            ("json_schema", self.json_schema, json_grammar),
            ("guided_json", self.guided_json, json_grammar),
            ("guided_regex", self.guided_regex, Grammar.regex),
            ("guided_choice", self.guided_choice, _one_of),
            ("guided_grammar", self.guided_grammar, _lark),
            ("structured_outputs.json", nested, json_grammar),
            ("structured_outputs.regex", outputs.regex, Grammar.regex),
            ("structured_outputs.choice", outputs.choice, _one_of),
            ("structured_outputs.grammar", outputs.grammar, _lark),
        ]
        found: list[tuple[str, Grammar]] = []
        for name, value, translate in given:
            try:
                grammar = None if value is None else translate(value)
            except UsageError as error:
                raise ApiError(400, str(error), param=name) from error
            found += [] if grammar is None else [(name, grammar)]
        if len(found) > 1:
            names = " and ".join(name for name, _ in found)
            raise ApiError(400, f"{names} exclude each other: give one of them", param=found[0][0])
        return found[0] if found else (None, None)


def json_grammar(schema: Schema) -> Grammar:
    """JSON that a schema describes, with bounds for integers that have none. Raises UsageError."""
    bounded = json.loads(Grammar.json_schema(schema).text)  # a copy, whose size is checked
    parts = [bounded]
    while parts:
        part = parts.pop()
        if isinstance(part, list):
            parts += part
        elif isinstance(part, dict):
            kinds = part.get("type")
            if kinds == "integer" or (isinstance(kinds, list) and "integer" in kinds and "number" not in kinds):
                _bound(part)
            parts += [value for key, value in part.items() if key not in _NO_SCHEMAS]
    return Grammar.json_schema(bounded)


def _bound(schema: dict[str, Any]) -> None:
    low, high = (schema.get(name, schema.get(f"exclusive{name.capitalize()}")) for name in ("minimum", "maximum"))
    if low is None and (high is None or (isinstance(high, int | float) and high > -MAX_INTEGER)):
        schema["minimum"] = -MAX_INTEGER
    if high is None and (low is None or (isinstance(low, int | float) and low < MAX_INTEGER)):
        schema["maximum"] = MAX_INTEGER


def _one_of(choices: list[str]) -> Grammar:
    if not choices or not all(choices):
        raise UsageError("there is no choice, or an empty one: give a list of texts")
    return Grammar.regex("|".join(_META.sub(r"\\\g<0>", choice) for choice in choices))


def _lark(text: str) -> Grammar:
    if "::=" not in text:
        return Grammar.lark(text)
    from llguidance.gbnf_to_lark import any_to_lark

    try:
        return Grammar.lark(any_to_lark(text).removeprefix("%llguidance {}").strip())
    except Exception as error:  # the converter's own, and whatever hostile text brings out of it
        raise UsageError(f"the GBNF grammar cannot be translated to Lark: {error}") from error
