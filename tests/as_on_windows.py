"""Takes away what Windows lacks, loads all modules and lets a model answer: `python as_on_windows.py MODEL FOLDER`.

The folder, for its pages, is in one that stands for the user's own.

Prints an object: `token_ids`, `cores`, `memory`, and `remedy` for a folder of pages outside the user's.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import signal
import struct
import sys
from importlib import import_module
from pathlib import Path

SOURCE = Path(__file__).parent.parent / "src"
PROMPT, PARAMS = "abcabcabc", {"max_tokens": 12, "temperature": 1.0, "seed": 7}
MODULES = ("fcntl", "termios", "tty", "pty", "resource", "pwd", "grp", "posix", "syslog", "readline")
NAMES = {
    os: "fork register_at_fork sched_getaffinity sysconf readv preadv geteuid getuid chown mkfifo getloadavg killpg "
    "setsid statvfs uname O_NOFOLLOW O_NONBLOCK O_CLOEXEC O_DIRECTORY",
    signal: "SIGHUP SIGQUIT SIGKILL SIGUSR1 SIGUSR2 SIGALRM SIGPIPE alarm setitimer pthread_kill",
    mmap: "MADV_DONTNEED MADV_WILLNEED",
}


def core(efficiency_class: int, mask: int, group: int = 0) -> bytes:
    """A record of GetLogicalProcessorInformationEx."""
    return struct.pack("<IIBB20xHQH6x", 0, 48, 0, efficiency_class, 1, mask, group)


class Kernel32:
    """Two performance cores of two processors each and two efficiency cores; processor 0 is not permitted."""

    _CORES = core(1, 0b11) + core(1, 0b1100) + core(0, 0b1_0000) + core(0, 0b10_0000)

    def GetCurrentProcess(self) -> int:  # noqa: N802
        return -1

    def GetProcessAffinityMask(self, _process, own, system) -> int:  # noqa: N802
        own._obj.value, system._obj.value = 0b11_1110, 0b11_1111
        return 1

    def GetLogicalProcessorInformationEx(self, relationship, records, size) -> int:  # noqa: N802
        assert relationship == 0
        fits, size._obj.value = size._obj.value >= len(self._CORES), len(self._CORES)
        if fits:
            ctypes.memmove(records, self._CORES, len(self._CORES))
        return int(fits)

    def GlobalMemoryStatusEx(self, status) -> int:  # noqa: N802
        assert status._obj.length == ctypes.sizeof(status._obj) == 64
        status._obj.free = 3 << 30
        return 1


def load_all(*, but: str) -> None:
    """Imports every module, save one."""
    for path in SOURCE.rglob("*.py"):
        name = ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
        if name != but:
            import_module(name)


def become_windows() -> None:
    """What others' libraries need of POSIX they have by now; ours are loaded again."""
    for name in list(sys.modules):
        if name.partition(".")[0] == "outrider" and not name.endswith("._native"):
            del sys.modules[name]
    sys.modules.update(dict.fromkeys(MODULES))
    for module, names in NAMES.items():
        for name in names.split():
            vars(module).pop(name, None)
    os.O_BINARY = os.O_NOINHERIT = 0
    ctypes.windll = type("", (), {"kernel32": Kernel32()})
    sys.platform = "win32"


def main(model: str, folder: str) -> None:
    load_all(but="outrider.system.windows")
    become_windows()
    os.environ["HOME"] = str(Path(folder).parent)
    load_all(but="outrider.system.posix")
    from outrider import LLM, SamplingParams
    from outrider.cores import cores
    from outrider.system import free_memory, remedy_to_make_private

    for _ in range(2):  # the second reads the pages that the first wrote
        llm = LLM(model, prefix_cache_dir=folder)
        answer = llm.generate(PROMPT, SamplingParams(**PARAMS))[0]
        llm.close()
    found = {"cores": cores().why, "memory": free_memory(), "remedy": remedy_to_make_private(SOURCE)}
    print(json.dumps({"token_ids": list(answer.token_ids), **found}))


if __name__ == "__main__":
    main(*sys.argv[1:])
