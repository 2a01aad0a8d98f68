"""The sockets of a server, bound before anything is loaded."""

from __future__ import annotations

import errno
import socket

from outrider.errors import UsageError

BACKLOG = 128
"""Connections that wait to be accepted. asyncio tries as many times in a row when file handles have run out."""

_LACKING = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
"""A machine without IPv6 may still resolve localhost to ::1."""


def bind(host: str, port: int) -> list[socket.socket]:
    """Listens at every address of `host`; with port 0, at one free port.

    Raises:
        UsageError: it cannot; the message says why and what to do.
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
    lacking: OSError | None = None
    try:
        for family, _, _, _, place in dict.fromkeys(found):
            taken = bound[0].getsockname()[1] if bound else port
            try:
                bound.append(socket.create_server((place[0], taken, *place[2:]), family=family, backlog=BACKLOG))
            except OSError as error:
                lacking = error
                if error.errno not in _LACKING:
                    raise UsageError(_sentence(host, port, error)) from error
        if not bound and lacking is not None:
            raise UsageError(_sentence(host, port, lacking)) from lacking
    except UsageError:
        for listener in bound:
            listener.close()
        raise
    return bound


def address(host: str, port: int) -> str:
    """As it stands in a URL."""
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
