"""The file of answers: in OpenAI's batch format, a line for each request that is done, in the order of their ends."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from outrider.errors import UsageError
from outrider.server.batch.requests import BatchRequest

_BEGINNING = b'{"id":"batch_req_'


class Answers:
    """Answers of this run and of earlier ones. A context manager, since only one process may write to a file.

    Each line is written whole and at once, so what a killed process leaves is complete but for its last line, which is
    cut off.

    Attributes:
        left: the requests that have no answer yet.
    """

    def __init__(self, path: Path, requests: Sequence[BatchRequest]) -> None:
        self._path, self._lock = path, FileLock(f"{path}.lock")
        self._requests = requests
        self.left: list[BatchRequest] = []

    def __enter__(self) -> Answers:
        """Raises UsageError: the file cannot be written, another process writes to it, or it holds something else."""
        try:
            self._lock.acquire(blocking=False)
        except Timeout as error:
            raise UsageError(f"another process writes to {self._path}: wait, or choose another --out") from error
        except OSError as error:
            raise UsageError(f"{self._path} cannot be written ({error.strerror}): choose another --out") from error
        try:
            self._file = self._path.open("a+b")
            self._resume()
        except BaseException as error:
            self._release()
            if isinstance(error, OSError):
                raise UsageError(f"{self._path} cannot be written ({error.strerror}): choose another --out") from error
            raise
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._release()

    def _release(self) -> None:
        Path(self._lock.lock_file).unlink(missing_ok=True)
        self._lock.release()

    def _resume(self) -> None:
        self._file.seek(0)
        known = {request.id: request for request in self._requests}
        done, end = set(), 0
        for number, line in enumerate(self._file, 1):
            if not line.endswith(b"\n") and line[: len(_BEGINNING)] == _BEGINNING[: len(line)]:
                break
            end += len(line)
            answered = _id(line)
            if answered not in known:
                raise UsageError(
                    f"{self._path}, line {number} is no answer to a request of this file: choose another --out, "
                    "or remove it"
                )
            done.add(answered)
        self._file.truncate(end)
        self.left = [request for request in self._requests if request.id not in done]

    def write(self, request: BatchRequest, status: int, request_id: str, body: Any) -> None:
        """Appends an answer, and hands it to the system."""
        response = {"status_code": status, "request_id": request_id, "body": body}
        line = {"id": request.id, "custom_id": request.custom_id, "response": response, "error": None}
        self._file.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
        self._file.flush()


def _id(line: bytes) -> str | None:
    try:
        fields = json.loads(line)
    except ValueError:
        return None
    return fields.get("id") if isinstance(fields, dict) else None
