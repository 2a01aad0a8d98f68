"""Errors as clients get them: OpenAI's shape, a sentence each."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse, Response

from outrider.tokenizer.utf8 import without_surrogates


class ApiError(Exception):
    """An error that the client gets: its HTTP status and OpenAI's type."""

    def __init__(self, status: int, kind: str, message: str, *, parameter: str | None = None) -> None:
        super().__init__(message)
        self.status, self.kind, self.parameter = status, kind, parameter

    def response(self, retry_after: int | None = None) -> Response:
        """`{"error": {...}}`; `retry_after` are seconds, sent where it is a matter of time."""
        later = retry_after is not None and self.status in (429, 503)
        headers = {"Retry-After": str(retry_after)} if later else None
        return JSONResponse(error_body(str(self), self.kind, self.parameter), self.status, headers)


def error_body(message: str, kind: str, parameter: str | None = None) -> dict[str, Any]:
    """A message may quote the request, and that what UTF-8 cannot write."""
    names = None if parameter is None else without_surrogates(parameter)
    return {"error": {"message": without_surrogates(message), "type": kind, "param": names, "code": None}}
