"""A server that cannot listen says so in one sentence, before it loads anything."""

from __future__ import annotations

import errno
import socket
import subprocess
import sys

import httpx
import pytest

from outrider.errors import UsageError
from outrider.server.sockets import address, bind


@pytest.fixture
def taken():
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield other.getsockname()[1]


def test_a_taken_port_ends_it_before_the_model_is_opened(taken):
    command = [
        sys.executable,
        "-c",
        "from outrider.cli import main; main()",
        "serve",
        "/no/such/model",
        "--port",
        str(taken),
    ]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 2
    assert ran.stdout == ""
    sentence = (
        f"error: another program listens at 127.0.0.1:{taken}: stop it, or choose another --port (0 takes a free one)"
    )
    assert ran.stderr == f"{sentence}\n"


def test_a_host_that_is_none():
    with pytest.raises(
        UsageError, match=r"the host of no\.such\.host\.invalid:80 cannot be resolved \(.+\): give --host"
    ):
        bind("no.such.host.invalid", 80)
    with pytest.raises(UsageError, match="cannot be resolved"):
        bind("a" * 300, 80)


def test_an_address_of_another_machine():
    with pytest.raises(UsageError, match=r"192\.0\.2\.1:8000 is no address of this machine"):
        bind("192.0.2.1", 8000)


def test_a_port_that_is_not_permitted(monkeypatch):
    def refuse(*_args, **_options):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket, "create_server", refuse)
    with pytest.raises(
        UsageError, match=r"listening at 127\.0\.0\.1:80 is not permitted: choose a --port from 1024 up"
    ):
        bind("127.0.0.1", 80)


def test_port_0_takes_one_port_for_all_addresses(monkeypatch):
    both = [(socket.AF_INET, 0, 0, "", ("127.0.0.1", 0)), (socket.AF_INET, 0, 0, "", ("127.0.0.2", 0))] * 2
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_options: both)
    bound = bind("localhost", 0)
    try:
        names = [listener.getsockname() for listener in bound]
        assert [name[0] for name in names] == ["127.0.0.1", "127.0.0.2"]
        assert names[0][1] == names[1][1] > 0
    finally:
        for listener in bound:
            listener.close()


def test_an_address_among_several_that_the_machine_lacks_is_left_out(monkeypatch):
    own, other = ((socket.AF_INET, 0, 0, "", (host, 0)) for host in ("127.0.0.1", "192.0.2.1"))
    for both in ([own, other], [other, own]):
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, both=both, **_options: both)
        (only,) = bind("localhost", 0)
        only.close()


def test_nothing_stays_bound_where_one_address_is_taken(monkeypatch, taken):
    both = [(socket.AF_INET, 0, 0, "", (host, taken)) for host in ("127.0.0.2", "127.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_options: both)
    with pytest.raises(UsageError, match="another program listens"):
        bind("localhost", taken)
    socket.create_server(("127.0.0.2", taken)).close()


def test_addresses_in_urls():
    assert [address("127.0.0.1", 1), address("::1", 2)] == ["127.0.0.1:1", "[::1]:2"]


@pytest.mark.slow
def test_the_port_that_was_found_is_announced():
    command = [
        sys.executable,
        "-c",
        "from outrider.cli import main; main()",
        "serve",
        "demo",
        "--port",
        "0",
        "--context",
        "64",
        "--threads",
        "1",
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            line = next(line for line in server.stderr if " at http://" in line)
            url = line.split(" at ")[1].split("/v1")[0]
            assert not url.endswith(":0")
            model = httpx.get(f"{url}/v1/models").json()["data"][0]
            assert model["outrider"]["drafters"] == ["prediction", "grammar", "mtp", "lookup"]
        finally:
            server.terminate()
            server.stderr.read()
        assert server.wait(20) == 0
