"""The number of threads: affinity, physical and performance cores, and a container's quota."""

from __future__ import annotations

import os
import subprocess

import pytest

from outrider import cores as module
from outrider import machine
from outrider.cores import Cores, cores
from outrider.system import linux, macos
from outrider.system.linux import cpus_of, one_per_core, performance


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Writes a file: own (the groups of the process), one under groups/, or one under devices/. 8 cores are allowed."""
    monkeypatch.setattr(machine, "_OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(machine, "_GROUPS", tmp_path / "groups")
    monkeypatch.setattr(linux, "_DEVICES", tmp_path / "devices")
    allow(monkeypatch, range(8), present=8)

    def add(path, text):
        target = tmp_path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    return add


def allow(monkeypatch, cpus, present):
    monkeypatch.setattr(module, "permitted_processors", lambda: list(cpus))
    monkeypatch.setattr(os, "cpu_count", lambda: present)


def hyper_threads(files, cores, name="core_cpus_list"):
    """Two a core: 0 and `cores`, 1 and `cores` + 1, and so on."""
    for core in range(cores):
        for cpu in (core, core + cores):
            files(f"devices/system/cpu/cpu{cpu}/topology/{name}", f"{core},{core + cores}\n")


@pytest.mark.usefixtures("files")
def test_nothing_narrows_them():
    assert cores() == Cores(8, 8, "all cores")


@pytest.mark.usefixtures("files")
def test_affinity(monkeypatch):
    allow(monkeypatch, [3, 5, 6], present=8)
    assert cores() == Cores(3, 3, "affinity to 3 of 8 processors")


@pytest.mark.parametrize("name", ["core_cpus_list", "thread_siblings_list"])
def test_one_thread_for_each_physical_core(files, monkeypatch, name):
    hyper_threads(files, 4, name)
    assert cores() == Cores(4, 4, "4 physical cores of 8 hyper-threads")
    allow(monkeypatch, [1, 4, 5], present=8)  # both of core 1, and the second of core 0
    assert cores() == Cores(2, 2, "affinity to 3 of 8 processors, 2 physical cores of 3 hyper-threads")


def test_performance_cores_of_intel(files, tmp_path, monkeypatch):
    hyper_threads(files, 2)  # processors 0 to 3; 4 to 7 are efficiency cores
    for cpu in range(4, 8):
        files(f"devices/system/cpu/cpu{cpu}/topology/core_cpus_list", f"{cpu}\n")
    files("devices/cpu_core/cpus", "0-3\n")
    files("devices/cpu_atom/cpus", "4-7\n")
    assert one_per_core(range(8), tmp_path / "devices") == [0, 1, 4, 5, 6, 7]
    assert cores() == Cores(2, 6, "6 physical cores of 8 hyper-threads, 2 performance cores of 6")
    allow(monkeypatch, [5, 6], present=8)  # efficiency cores only
    assert cores() == Cores(2, 2, "affinity to 2 of 8 processors")


@pytest.mark.parametrize(
    ("name", "speeds", "chosen"),
    [
        ("cpu_capacity", (250, 250, 250, 250, 760, 760, 760, 1024), [4, 5, 6, 7]),  # ARM, three kinds
        ("cpu_capacity", (1024,) * 8, list(range(8))),
        ("cpufreq/cpuinfo_max_freq", (5_200_000, 5_100_000, *(4_900_000,) * 6), list(range(8))),  # preferred cores
        ("cpufreq/cpuinfo_max_freq", (2_000_000, 2_000_000, *(3_600_000,) * 6), list(range(2, 8))),
    ],
)
def test_performance_cores_by_speed(files, tmp_path, name, speeds, chosen):
    for cpu, speed in enumerate(speeds):
        files(f"devices/system/cpu/cpu{cpu}/{name}", f"{speed}\n")
    assert performance(list(range(8)), tmp_path / "devices") == chosen


def test_cores_of_unknown_speed_count_as_equal(files, tmp_path):
    files("devices/system/cpu/cpu0/cpu_capacity", "1024\n")
    files("devices/system/cpu/cpu1/cpu_capacity", "fast\n")
    assert performance([0, 1], tmp_path / "devices") == [0, 1]


@pytest.mark.parametrize(
    ("text", "found"),
    [("0-3,8\n", {0, 1, 2, 3, 8}), ("5", {5}), ("", set()), ("\n", set()), ("0-", {0}), ("x", set()), ("1-x", set())],
)
def test_lists_of_processors(text, found):
    assert cpus_of(text) == found


@pytest.mark.parametrize(
    ("quota", "threads"),
    [(10_000, 1), (140_000, 1), (199_999, 1), (250_000, 2), (300_000, 3), (1_600_000, 8)],
)
def test_a_quota_is_rounded_down(files, quota, threads):
    """A fraction more of threads would stop all of them at every barrier until the next period."""
    files("own", "0::/\n")
    files("groups/cpu.max", f"{quota} 100000\n")
    assert cores().threads == threads


def test_the_tightest_quota_of_the_groups_around(files):
    files("own", "0::/user.slice/app.scope\n")
    files("groups/user.slice/app.scope/cpu.max", "550000 100000\n")
    files("groups/user.slice/cpu.max", "350000 100000\n")
    files("groups/cpu.max", "max 100000\n")
    assert cores() == Cores(3, 3, "a CPU quota of 3.5 of 8 cores")


def test_a_quota_of_version_1_whose_path_is_the_hosts(files):
    files("own", "3:cpu,cpuacct:/docker/abc\n2:pids:/docker/abc\n")
    files("groups/cpu/cpu.cfs_quota_us", "-1\n")
    files("groups/cpu/cpu.cfs_period_us", "100000\n")
    assert cores() == Cores(8, 8, "all cores")
    files("groups/cpu/cpu.cfs_quota_us", "220000\n")
    assert cores() == Cores(2, 2, "a CPU quota of 2.2 of 8 cores")


def test_all_at_once(files, monkeypatch):
    hyper_threads(files, 4)
    allow(monkeypatch, [0, 1, 2, 4, 5, 6], present=8)
    files("devices/cpu_core/cpus", "0-1,4-5\n")
    files("own", "0::/\n")
    files("groups/cpu.max", "150000 100000\n")
    assert cores() == Cores(
        1,
        1,
        "affinity to 6 of 8 processors, 3 physical cores of 6 hyper-threads, 2 performance cores of 3, "
        "a CPU quota of 1.5 of 2 cores",
    )


@pytest.mark.usefixtures("files")
def test_a_mac(monkeypatch):
    monkeypatch.setattr(module, "cores_of", macos.cores_of)
    monkeypatch.setattr(subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 0, "6\n", ""))
    assert cores() == Cores(6, 8, "6 performance cores of 8")
    monkeypatch.setattr(subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 1, "", "unknown"))
    assert cores().threads == 8


def test_here():
    found = cores()
    assert 1 <= found.threads <= found.most <= (os.cpu_count() or 1)
