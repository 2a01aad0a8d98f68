"""What all parts of a request have in common: null is absent, and unknown fields are ignored."""

from __future__ import annotations

import logging
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from outrider.server.errors import ApiError

_log = logging.getLogger("outrider.server")
_MOST_NAMES, _LONGEST_NAME = 1000, 64
_reported: set[str] = set()
"""Names of unknown fields that were logged; bounded, since clients choose them."""


Refused = dict[str, tuple[tuple[Any, ...], str]]


class Fields(BaseModel):
    """A part of a request.

    A field that is null counts as absent. An unknown one is ignored; each name is logged once. Fields of other servers
    that would change the text are refused. The first wrong entry of a list ends its check: a million errors would take
    seconds of all threads, and some hundred times the list's memory.

    Attributes: `refused` maps their names to the values that change nothing and to the nearest supported option;
    `spellings` maps other names of a field to its own.
    """

    model_config = ConfigDict(extra="ignore", populate_by_name=True)
    refused: ClassVar[Refused] = {}
    spellings: ClassVar[dict[str, str]] = {}

    @classmethod
    def checked(cls, given: Any) -> Self:
        """A part of a request. Raises ApiError, which names the first field that is wrong."""
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            raise _first_problem(error) from error

    @model_validator(mode="before")
    @classmethod
    def _known(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        names = {name for field, info in cls.model_fields.items() for name in (field, info.alias)}
        known = {}
        for name, value in given.items():
            if value is None:
                continue
            if name in names:
                known[name] = value
            elif name in cls.spellings:
                known.setdefault(cls.spellings[name], value)
            elif name in cls.refused:
                neutral, remedy = cls.refused[name]
                if value not in neutral:
                    raise ApiError(400, f"{name} is not supported: {remedy}", param=name)
            else:
                _report(name, cls.__name__)
        return known

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Has every list fail at its first wrong entry."""
        schema = handler(source)
        parts: list[Any] = [schema]
        while parts:
            part = parts.pop()
            if isinstance(part, dict):
                if part.get("type") == "list":
                    part["fail_fast"] = True
                parts += part.values()
            elif isinstance(part, list | tuple):
                parts += part
        return schema

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Describes every field that may be absent as nullable."""
        schema = handler(core)
        found = handler.resolve_ref_schema(schema)
        for name, field in found.get("properties", {}).items():
            if name not in found.get("required", ()) and field and {"type": "null"} not in field.get("anyOf", ()):
                found["properties"][name] = {"anyOf": [field, {"type": "null"}]}
        return schema


def _first_problem(error: ValidationError) -> ApiError:
    first = error.errors(include_url=False, include_context=False)[0]
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
    field, message = path.removeprefix("."), first["msg"].removeprefix("Value error, ")
    return ApiError(400, f"{field}: {message}" if field else message, param=field or None)


def _report(name: str, part: str) -> None:
    if name not in _reported and len(_reported) < _MOST_NAMES:
        _reported.add(name)
        _log.warning("unknown field %.*r is ignored (in %s)", _LONGEST_NAME, name, part)


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("give a number, not true or false")
    return value


Integer = Annotated[int, BeforeValidator(_no_bool)]
Number = Annotated[float, BeforeValidator(_no_bool)]
