"""The response format of a request, as a grammar."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from outrider import Grammar
from outrider.errors import UsageError
from outrider.sampling.grammar import MAX_GRAMMAR_BYTES
from outrider.server.errors import ApiError


class NamedSchema(BaseModel):
    """The `json_schema` of a response format. It is enforced whether `strict` or not."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)
    name: Annotated[str, Field(max_length=64)] = ""
    description: str | None = None
    schema_: Annotated[dict[str, Any] | bool, Field(alias="schema")]
    strict: bool | None = None


class TextFormat(BaseModel):
    """Any text."""

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
        """Of any JSON object."""
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


class StructuredOutput(BaseModel):
    """The fields that constrain the answer; at most one of them."""

    response_format: ResponseFormat | None = None
    # outrider's own: the other grammars of llguidance.
    grammar: Annotated[str, Field(min_length=1, max_length=MAX_GRAMMAR_BYTES)] | None = None
    regex: Annotated[str, Field(min_length=1, max_length=MAX_GRAMMAR_BYTES)] | None = None

    def constraint(self) -> tuple[str | None, Grammar | None]:
        """The field that constrains the answer, and its grammar; (None, None) without one.

        Raises:
            ApiError: there are several, or a grammar is too long.
        """
        try:
            given = {
                "response_format": self.response_format and self.response_format.grammar(),
                "grammar": self.grammar and Grammar.lark(self.grammar),
                "regex": self.regex and Grammar.regex(self.regex),
            }
        except UsageError as error:
            raise ApiError(400, str(error), param="response_format") from error
        found = [(name, grammar) for name, grammar in given.items() if isinstance(grammar, Grammar)]
        if len(found) > 1:
            fields = " and ".join(name for name, _ in found)
            raise ApiError(400, f"{fields} exclude each other: give one of them", param=found[0][0])
        return found[0] if found else (None, None)
