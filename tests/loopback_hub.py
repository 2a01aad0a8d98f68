"""A hub on loopback: repositories from folders, with the routes that the client library uses, and faults on demand."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """`repositories` name -> folder; `gated` and `cut` change what is answered; `sent` are the bytes of each file."""

    def __init__(self) -> None:
        self.repositories: dict[str, Path] = {}
        self.gated: set[str] = set()
        self.cut: dict[str, int] = {}  # file name -> bytes after which its connection breaks, once
        self.sent: dict[str, int] = {}
        self.ranges: list[str] = []
        self.tokens: set[str] = set()


@contextlib.contextmanager
def loopback_hub() -> Iterator[tuple[Hub, str]]:
    """A running hub and its address."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_for(hub))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def _handler_for(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_HEAD(self) -> None:
            self._serve(body=False)

        def do_GET(self) -> None:
            self._serve(body=True)

        def _serve(self, *, body: bool) -> None:
            path = unquote(urlparse(self.path).path).strip("/")
            if token := self.headers.get("Authorization"):
                hub.tokens.add(token)
            if path.startswith("api/models/"):
                return self._api(path.removeprefix("api/models/"))
            name, _, rest = path.partition("/resolve/")
            revision, _, file = rest.partition("/")
            if not self._known(name, revision):
                return None
            source = hub.repositories[name] / file
            if not source.is_file():
                return self._fail(404, "EntryNotFound", "Entry not found")
            return self._file(source, file, body)

        def _api(self, path: str) -> None:
            parts = path.split("/")
            name, what, revision = "/".join(parts[:2]), parts[2], "/".join(parts[3:])
            if not self._known(name, revision):
                return
            folder = hub.repositories[name]
            files = sorted(str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file())
            if what == "tree":
                entries = [
                    {"type": "file", "path": f, "size": (folder / f).stat().st_size, "oid": _etag(folder / f)}
                    for f in files
                ]
                self._json(entries)
            else:
                self._json({"id": name, "sha": COMMIT, "siblings": [{"rfilename": f} for f in files], "tags": []})

        def _known(self, name: str, revision: str) -> bool:
            if name in hub.gated:
                self._fail(403, "GatedRepo", "Access to this model is restricted")
            elif name not in hub.repositories:
                self._fail(404, "RepoNotFound", "Repository not found")
            elif revision not in ("main", COMMIT):
                self._fail(404, "RevisionNotFound", "Invalid rev id")
            else:
                return True
            return False

        def _file(self, source: Path, file: str, body: bool) -> None:
            data = source.read_bytes()
            begin = 0
            if wanted := self.headers.get("Range"):
                hub.ranges.append(wanted)
                begin = int(wanted.removeprefix("bytes=").split("-")[0])
            self.send_response(206 if begin else 200)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{_etag(source)}"')
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(len(data) - begin))
            if begin:
                self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
            self.end_headers()
            if not body:
                return
            stop = hub.cut.pop(file, None)
            part = data[begin : len(data) if stop is None else stop]
            hub.sent[file] = hub.sent.get(file, 0) + len(part)  # first: a client that has it all may look at once
            self.wfile.write(part)
            if stop is not None:
                self.wfile.flush()
                self.connection.close()
                self.close_connection = True

        def _json(self, value: Any) -> None:
            data = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _fail(self, status: int, code: str, message: str) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", message)
            self.send_header("Content-Length", "0")
            self.end_headers()

    return Handler


def _entry(folder: Path, file: str) -> dict[str, Any]:
    return {"type": "file", "path": file, "size": (folder / file).stat().st_size, "oid": _etag(folder / file)}


def _etag(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()
