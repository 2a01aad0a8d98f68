"""Listening sockets, bound before the model is loaded."""

from __future__ import annotations

import errno
import socket

from outrider.errors import UsageError

BACKLOG = 128
"""Length of the accept queue. asyncio tries as many times in a row when file handles have run out."""

_MISSING = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
"""A machine without IPv6 may still resolve localhost to ::1."""


def bind(host: str, port: int) -> list[socket.socket]:
    """Sockets that listen at every address of `host`; port 0 is one free port.

    Raises:
        UsageError: an address cannot be bound; the message says why and what to do.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        what = error.strerror if isinstance(error, socket.gaierror) else error
        raise UsageError(
            f"the host of {address(host, port)} cannot be resolved ({what}): give --host an address of this machine, "
            "or 0.0.0.0 for all"
        ) from error
    bound: list[socket.socket] = []
    missing: OSError | None = None
    try:
        for family, _, _, _, name in dict.fromkeys(found):
            taken = bound[0].getsockname()[1] if bound else port
            try:
                bound.append(socket.create_server((name[0], taken, *name[2:]), family=family, backlog=BACKLOG))
            except OSError as error:
                missing = error
                if error.errno not in _MISSING:
                    raise UsageError(_sentence(host, port, error)) from error
        if not bound and missing is not None:
            raise UsageError(_sentence(host, port, missing)) from missing
    except UsageError:
        for listener in bound:
            listener.close()
        raise
    return bound


def address(host: str, port: int) -> str:
    """Host and port in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _sentence(host: str, port: int, error: OSError) -> str:
    where = address(host, port)
    if error.errno == errno.EADDRINUSE:
        return f"another program listens at {where}: stop it, or choose another --port (0 takes a free one)"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"listening at {where} is not permitted: choose a --port from 1024 up, or run with the privilege"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{where} is no address of this machine: give --host one that is, or 0.0.0.0 for all"
    return f"cannot listen at {where} ({error.strerror}): choose another --host or --port"
