"""HEAD is served as GET, a trailing slash is ignored, and an error of an unknown route lists the known ones."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from outrider.server.errors import ApiError

_NOT_SERVED = {
    "embeddings": "no embedding model is served",
    "rerank": "no reranking model is served",
    "score": "no reranking model is served",
    "moderations": "no moderation model is served",
    "images": "no image model is served",
    "audio": "no audio model is served",
    "batches": "there is no batch queue: send requests to /v1/completions or /v1/chat/completions",
    "files": "there is no file store: put texts into the messages",
    "fine_tuning": "models cannot be trained here",
    "assistants": "there are no assistants: use /v1/chat/completions",
    "threads": "there are no threads: use /v1/chat/completions",
}
"""Routes of OpenAI's API and their kin."""


class Paths:
    """ASGI middleware: serves HEAD as GET without the body, and ignores a slash at the end of a path."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        head, path = scope["method"] == "HEAD", scope["path"].rstrip("/") or "/"

        async def without_body(message: Message) -> None:
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        changed = {**scope, "path": path, "method": "GET" if head else scope["method"]}
        return await self._app(changed, receive, without_body if head else send)


def not_routed(status: int, method: str, path: str, routes: Iterable[str]) -> ApiError:
    """The error of a request that has no route."""
    name = path.removeprefix("/v1/").strip("/").partition("/")[0]
    listed = ", ".join(routes)
    if status == 405:
        return ApiError(405, f"{path} does not take {method}. Routes: {listed}")
    reason = _NOT_SERVED.get(name, f"there is no route {path}")
    return ApiError(404, f"{reason}. Routes: {listed}", code="unknown_url")
