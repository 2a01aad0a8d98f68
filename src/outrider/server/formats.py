"""The form that a client wants its answer in, as a grammar."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from outrider import Grammar
from outrider.sampling.grammar import MAX_GRAMMAR_BYTES


class NamedSchema(BaseModel):
    """The `json_schema` of a response format. An answer keeps to it whether `strict` or not."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)
    name: Annotated[str, Field(max_length=64)] = ""
    description: str | None = None
    schema_: Annotated[dict[str, Any] | bool, Field(alias="schema")]
    strict: bool | None = None


class TextFormat(BaseModel):
    """No form at all."""

    model_config = ConfigDict(extra="forbid")
    type: Literal["text"]

    def grammar(self) -> Grammar | None:
        """None."""
        return None


class JsonObjectFormat(BaseModel):
    """Any JSON object."""

    model_config = ConfigDict(extra="forbid")
    type: Literal["json_object"]

    def grammar(self) -> Grammar | None:
        """That of a JSON object."""
        return Grammar.json_object()


class JsonSchemaFormat(BaseModel):
    """JSON that a schema describes."""

    model_config = ConfigDict(extra="forbid")
    type: Literal["json_schema"]
    json_schema: NamedSchema

    def grammar(self) -> Grammar | None:
        """The schema's. Raises UsageError if it is too long."""
        return Grammar.json_schema(self.json_schema.schema_)


ResponseFormat = Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")]


class Formed(BaseModel):
    """The fields by which a request asks for a form; at most one of them."""

    response_format: ResponseFormat | None = None
    # outrider's own: what else llguidance can hold an answer to.
    grammar: Annotated[str, Field(min_length=1, max_length=MAX_GRAMMAR_BYTES)] | None = None
    regex: Annotated[str, Field(min_length=1, max_length=MAX_GRAMMAR_BYTES)] | None = None

    def form(self) -> tuple[str, Grammar | None]:
        """Which field asks for a form, and the grammar; ("", None) if none does.

        Raises:
            ValueError: several do.
            UsageError: it is too long.
        """
        asked = {
            "response_format": self.response_format and self.response_format.grammar(),
            "grammar": self.grammar and Grammar.lark(self.grammar),
            "regex": self.regex and Grammar.regex(self.regex),
        }
        wanted = [(name, grammar) for name, grammar in asked.items() if isinstance(grammar, Grammar)]
        if len(wanted) > 1:
            raise ValueError(f"{' and '.join(name for name, _ in wanted)} exclude each other: ask for one form")
        return wanted[0] if wanted else ("", None)
