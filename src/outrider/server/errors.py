"""Errors that clients get: a sentence, an HTTP status and OpenAI's type, whatever API writes them."""

from __future__ import annotations

import logging

from starlette.exceptions import HTTPException

from outrider.chat.markers import UnknownToolsError
from outrider.errors import OutriderError, UsageError
from outrider.tokenizer.utf8 import without_surrogates

_log = logging.getLogger("outrider.server")


class ApiError(OutriderError):
    """A request that cannot be answered.

    Args:
        status: the HTTP status.
        kind: OpenAI's error type.
        param: the field that is wrong.
        code: OpenAI's error code.
        limit: the limit that rejected or ended the request, as the metrics count it.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        limit: str | None = None,
    ) -> None:
        # Both may quote the request, which may hold what UTF-8 cannot encode.
        super().__init__(without_surrogates(message))
        self.status, self.kind, self.code, self.limit = status, kind, code, limit
        self.param = None if param is None else without_surrogates(param)

    @property
    def retry(self) -> bool:
        """Whether the same request may succeed later."""
        return self.status in (429, 503)


def api_error(error: Exception) -> ApiError:
    """What a client gets for an error. An unexpected one is logged, and its message kept from the client."""
    match error:
        case ApiError():
            return error
        case UsageError():
            return ApiError(400, str(error), param="tools" if isinstance(error, UnknownToolsError) else None)
        case OutriderError():
            return ApiError(503, str(error), kind="server_error")
        case HTTPException():
            return ApiError(error.status_code, str(error.detail))
    _log.error("a request failed", exc_info=error)
    return ApiError(500, "internal server error; see the server log", kind="server_error")
