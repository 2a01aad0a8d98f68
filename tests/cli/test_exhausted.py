"""What the system has no more of is said in a sentence: memory, threads, space behind the output."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from outrider import LLM
from outrider.cores import Cores
from outrider.errors import UsageError

FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="has no /dev/full")


def outrider(*arguments, output, **environment):
    command = [sys.executable, "-c", "from outrider.cli import main; main()", *arguments]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"} | environment
    return subprocess.run(command, stdout=output, stderr=subprocess.PIPE, text=True, env=environment, timeout=300)


@needs_full
@pytest.mark.parametrize("environment", [{}, {"PYTHONUNBUFFERED": "1"}])
@pytest.mark.parametrize("arguments", [("--version",), ("--help",), ("inspect", "tiny"), ("inspect", "tiny", "--json")])
def test_a_full_disk_behind_the_output(tiny, arguments, environment):
    arguments = [str(tiny("gemma3").gguf) if argument == "tiny" else argument for argument in arguments]
    with FULL.open("w") as output:
        ran = outrider(*arguments, output=output, **environment)
    assert ran.returncode == 1
    says = "error: the output cannot be written (No space left on device): free space on its disk, or write elsewhere\n"
    assert ran.stderr == says


@needs_full
@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_full_disk_behind_an_answer(options):
    with FULL.open("w") as output:
        ran = outrider("run", "demo", "Once", "--max-tokens", "5", *options, output=output)
    assert ran.returncode == 1
    assert "error: the output cannot be written" in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (MemoryError("Unable to allocate 9 GiB"), "memory ran out while loading demo"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "memory ran out while loading demo"),
        (
            RuntimeError("can't start new thread"),
            "the system starts no more threads while loading demo: lower --threads",
        ),
        (RuntimeError("Resource temporarily unavailable"), "the system starts no more threads while loading demo"),
    ],
)
def test_what_runs_out_while_a_model_is_loaded(fake, call, monkeypatch, error, says):
    def fail(*_args, **_options):
        raise error

    monkeypatch.setattr(fake, "__init__", fail)
    ran = call("run", "demo", "x")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"error: {says}")
    assert ran.err.count("\n") == 1
    if "memory" in says:
        assert "(its weights alone take 0.2" in ran.err
        assert "--quantize q4_0" in ran.err


def test_a_model_that_cannot_be_sized_is_not(fake, call, monkeypatch):
    def fail(*_args, **_options):
        raise MemoryError

    monkeypatch.setattr(fake, "__init__", fail)
    monkeypatch.setattr("outrider.checkpoints.open_checkpoint", fail)
    assert call("run", "demo", "x").err.startswith("error: memory ran out while loading demo: use a smaller model")


@pytest.mark.parametrize("command", [("run", "demo", "x"), ("inspect", "demo")])
def test_memory_that_runs_out_later(fake, call, monkeypatch, command):
    def fail(*_args, **_options):
        raise MemoryError

    monkeypatch.setattr(fake, "stream", fail)
    monkeypatch.setattr(fake, "generate", fail)
    monkeypatch.setattr("outrider.cli.inspect.describe", fail)
    ran = call(*command)
    assert ran.code == 2
    assert "error: memory ran out: use a smaller model" in ran.err


@pytest.mark.parametrize("kind", ["gguf", "folder"])
def test_memory_that_runs_out_while_a_file_is_read_is_not_the_files_fault(tiny, call, monkeypatch, kind):
    def fail(*_args, **_options):
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr("numpy.memmap", fail)
    for command in (("inspect",), ("run", "x")):
        ran = call(command[0], str(getattr(tiny("gemma3"), kind)), *command[1:])
        assert ran.code == 2
        assert "error: memory ran out" in ran.err
        assert "permissions" not in ran.err
        assert "download" not in ran.err.lower()


@pytest.mark.parametrize(
    "cause",
    [MemoryError(), OSError(errno.ENOMEM, "Cannot allocate memory"), Exception("mmap: Cannot allocate memory (12)")],
)
def test_advice_about_a_file_gives_way_to_memory_that_ran_out(fake, call, monkeypatch, cause):
    def fail(*_args, **_options):
        raise UsageError("--prompts a.txt cannot be read: check its path") from cause

    monkeypatch.setattr("outrider.cli.inspect.describe", fail)
    assert "error: memory ran out: use a smaller model" in call("inspect", "demo").err
    monkeypatch.setattr(fake, "__init__", fail)
    assert "error: memory ran out while loading demo" in call("run", "demo", "x").err


@pytest.mark.parametrize("error", [RuntimeError("a fault"), OSError(errno.EIO, "Input/output error")])
def test_faults_stay_faults(fake, call, monkeypatch, error):
    def fail(*_args, **_options):
        raise error

    monkeypatch.setattr(fake, "__init__", fail)
    with pytest.raises(type(error)):
        call("run", "demo", "x")


_PEAK = """
import re
from outrider.cli import main
try:
    main()
finally:
    print(re.search("VmPeak:\\s*(\\d+) kB", open("/proc/self/status").read())[1])
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="measures and limits a process's memory as Linux does")
def test_a_limit_of_memory_in_a_process():
    """Enough to start, too little to load: 15 % less than it takes without a limit."""
    import resource

    def ran(limit=resource.RLIM_INFINITY):
        command = [sys.executable, "-c", _PEAK, "run", "demo", "x", "--max-tokens", "1", "--threads", "1"]
        lower = partial(resource.setrlimit, resource.RLIMIT_AS, (limit, limit))
        return subprocess.run(command, capture_output=True, text=True, preexec_fn=lower, timeout=300)

    unlimited = ran()
    assert unlimited.returncode == 0, unlimited.stderr
    limited = ran(int(unlimited.stdout.split()[-1]) * 1024 * 85 // 100)
    assert limited.returncode == 2
    assert "memory ran out" in limited.stderr
    assert "Traceback" not in limited.stderr


def test_more_threads_than_cores_get_a_warning(fake, call, monkeypatch):
    monkeypatch.setattr("outrider.cores.cores", lambda: Cores(2, 2, "all cores"))
    assert "warning" not in call("run", "demo", "x", "--threads", "2").err
    assert "warning: 64 threads share 2 usable core(s)" in call("run", "demo", "x", "--threads", "64").err
    assert fake.made[-1].parts.threads == 64


def test_in_python_it_is_a_warning_too(tiny, monkeypatch, recwarn):
    monkeypatch.setattr("outrider.cores.cores", lambda: Cores(1, 1, "all cores"))
    LLM(tiny("gemma3").gguf, threads=1)
    assert not recwarn.list
    with pytest.warns(UserWarning, match="2 threads share 1 usable core"):
        LLM(tiny("gemma3").gguf, threads=2)
