"""Memory and cores are those of the container, where it has limits."""

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
    monkeypatch.setattr(machine, "_allowed_cores", lambda: 8)

    def add(path, text):
        target = tmp_path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    add("meminfo", MEMINFO)
    return add


@pytest.mark.usefixtures("files")
def test_without_containers():
    assert machine.memory() == machine.Memory(64 * 1024, 10 * 1024, contained=False)
    assert machine.usable_cores() == 8
    assert machine.which_cores() == "all usable cores"


def test_a_container_of_version_2(files):
    files("own", "0::/\n")
    files("groups/memory.max", "max\n")
    files("groups/memory.current", "1000\n")
    files("groups/cpu.max", "max 100000\n")
    assert machine.memory() == machine.Memory(64 * 1024, 10 * 1024, contained=False)
    assert machine.usable_cores() == 8
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
    files("groups/user.slice/app.scope/cpu.max", "300000 100000\n")
    assert machine.memory().available == 4000
    assert machine.usable_cores() == 3
    assert machine.which_cores() == "a CPU quota of 3 of 8 cores"
    files("own", "0::/../elsewhere\n")
    assert machine.memory().available == 64 * 1024


def test_a_container_of_version_1_whose_path_is_the_hosts(files):
    files("own", "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n2:pids:/docker/abc\n")
    files("groups/memory/memory.limit_in_bytes", "9223372036854771712\n")
    files("groups/memory/memory.usage_in_bytes", "1000\n")
    files("groups/cpu/cpu.cfs_quota_us", "-1\n")
    files("groups/cpu/cpu.cfs_period_us", "100000\n")
    assert machine.memory() == machine.Memory(64 * 1024, 10 * 1024, contained=False)
    assert machine.usable_cores() == 8
    files("groups/memory/memory.limit_in_bytes", "6000\n")
    files("groups/memory/memory.stat", "total_inactive_file 300\n")
    files("groups/cpu/cpu.cfs_quota_us", "100000\n")
    assert machine.memory().available == 5300
    assert machine.usable_cores() == 1


@pytest.mark.parametrize(("quota", "cores"), [(10_000, 1), (140_000, 1), (150_000, 2), (250_000, 3), (1_600_000, 8)])
def test_a_quota_is_rounded(files, quota, cores):
    files("own", "0::/\n")
    files("groups/cpu.max", f"{quota} 100000\n")
    assert machine.usable_cores() == cores


@pytest.mark.usefixtures("files")
def test_another_system(monkeypatch):
    monkeypatch.setattr(machine, "_MEMINFO", machine._MEMINFO / "none")
    found = machine.memory()
    assert found.available == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    assert found.swap is None


def test_here():
    assert machine.memory().available > 1 << 20
    assert 1 <= machine.usable_cores() <= (os.cpu_count() or 1)
