"""A server of the OpenAI API that does what it should not, byte by byte as the test says."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def event(**chunk) -> bytes:
    return b"data: " + json.dumps(chunk, ensure_ascii=False).encode() + b"\n\n"


def piece(text: str, finish: str | None = None) -> bytes:
    return event(choices=[{"index": 0, "text": text, "finish_reason": finish}])


USAGE = event(choices=[], usage={"prompt_tokens": 1, "completion_tokens": 7, "total_tokens": 8})
DONE = b"data: [DONE]\n\n"


class Misbehaving(ThreadingHTTPServer):
    """`parts` are sent one by one; `status` other than 200 sends `body` instead. `asked` are the bodies that came."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.parts: list[bytes] = []
        self.status, self.body = 200, b""
        self.models: bytes = json.dumps({"data": [{"id": "m"}]}).encode()
        self.models_status = 200
        self.asked: list[dict] = []
        self.statuses: list[int] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Misbehaving

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            self._send(self.server.models_status, self.server.models)
        else:
            self._send(404, b"")

    def do_POST(self) -> None:
        server = self.server
        server.asked.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        status = server.statuses.pop(0) if server.statuses else server.status
        if status != 200:
            self._send(status, server.body)
            return
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        for part in server.parts:
            self.wfile.write(part)
            self.wfile.flush()
            time.sleep(0.002)

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def misbehaving() -> Iterator[Misbehaving]:
    """A running one."""
    server = Misbehaving()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
