"""Memory is that of the container, where it has limits."""

from __future__ import annotations

import os

import pytest

from outrider import machine

MEMINFO = "MemTotal: 100 kB\nMemAvailable:   64 kB\nSwapFree: 10 kB\n"


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Writes a file of the system: meminfo, own (the groups of the process), or one under groups/."""
    for name in ("MEMINFO", "OWN_GROUPS", "GROUPS"):
        monkeypatch.setattr(machine, f"_{name}", tmp_path / name.split("_")[0].lower())

    def add(path, text):
        target = tmp_path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    add("meminfo", MEMINFO)
    return add


@pytest.mark.usefixtures("files")
def test_without_containers():
    assert machine.memory() == machine.Memory(64 * 1024, 10 * 1024, contained=False)


def test_a_container_of_version_2(files):
    files("own", "0::/\n")
    files("groups/memory.max", "max\n")
    files("groups/memory.current", "1000\n")
    assert machine.memory() == machine.Memory(64 * 1024, 10 * 1024, contained=False)
    files("groups/memory.max", "9000\n")
    assert machine.memory().available == 8000
    files("groups/memory.stat", "anon 100\nfile 900\ninactive_file 500\nactive_file 200\n")
    files("groups/memory.swap.max", "300\n")
    files("groups/memory.swap.current", "100\n")
    assert machine.memory() == machine.Memory(8700, 200, contained=True)


def test_limits_of_the_groups_around(files):
    files("own", "0::/user.slice/app.scope\n")
    files("groups/user.slice/memory.max", "5000\n")
    files("groups/user.slice/memory.current", "1000\n")
    files("groups/user.slice/app.scope/memory.max", "7000\n")
    files("groups/user.slice/app.scope/memory.current", "100\n")
    assert machine.memory().available == 4000
    files("own", "0::/../elsewhere\n")
    assert machine.memory().available == 64 * 1024


def test_a_container_of_version_1_whose_path_is_the_hosts(files):
    files("own", "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n2:pids:/docker/abc\n")
    files("groups/memory/memory.limit_in_bytes", "9223372036854771712\n")
    files("groups/memory/memory.usage_in_bytes", "1000\n")
    assert machine.memory() == machine.Memory(64 * 1024, 10 * 1024, contained=False)
    files("groups/memory/memory.limit_in_bytes", "6000\n")
    files("groups/memory/memory.stat", "total_inactive_file 300\n")
    assert machine.memory().available == 5300


@pytest.mark.usefixtures("files")
def test_another_system(monkeypatch):
    monkeypatch.setattr(machine, "_MEMINFO", machine._MEMINFO / "none")
    found = machine.memory()
    assert found.available == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    assert found.swap is None


def test_here():
    assert machine.memory().available > 1 << 20
