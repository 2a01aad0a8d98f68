"""What large requests took is given back: a server's memory must not stay where its worst moment was."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from serving import serving

from outrider.errors import UsageError
from outrider.server.allocator import return_large_blocks

_BLOCKS = """
import psutil
from outrider.server.allocator import return_large_blocks

if {tell}:
    assert return_large_blocks()
blocks = bytearray(9 << 20)
del blocks  # by now glibc takes blocks of this size for usual, and puts the next into its heap
blocks, behind = [], []
for _ in range(20):
    blocks.append(bytearray(b"x") * (8 << 20))
    behind.append(bytearray(100 << 10))  # after each: one of them may find room elsewhere
del blocks
print(psutil.Process().memory_info().vms)  # what the process holds, whatever of it is in memory
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators are left as they are")
def test_large_blocks_go_back_to_the_system():
    took = []
    for tell in (False, True):
        ran = subprocess.run([sys.executable, "-c", _BLOCKS.format(tell=tell)], capture_output=True, check=True)
        took.append(int(ran.stdout))
    kept = took[0] - took[1]
    assert kept > 100 << 20, "of 160 MiB; else there is nothing to tell the allocator any more"


def test_allocators_that_are_not_known_are_left_alone(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr("ctypes.CDLL", lambda *_: pytest.fail("nothing is to be called there"))
    assert return_large_blocks() is False


def test_a_text_that_cannot_fit_is_refused_without_being_encoded(served_llm, monkeypatch):
    monkeypatch.setattr(served_llm.tokenizer, "encode", lambda *_, **__: pytest.fail("it was encoded"))
    text = "ab " * 100_000
    with pytest.raises(UsageError, match=r"has at least \d+ tokens and leaves no room in a context of 256"):
        served_llm.parts.prompts.encode(text)
    with pytest.raises(UsageError, match="leaves no room"):
        served_llm.parts.prompts.conversation([{"role": "user", "content": text}])


def test_a_crowd_of_prompts_is_encoded_two_at_a_time(served_llm, monkeypatch):
    own, busy, most = served_llm.tokenizer.encode, threading.Semaphore(100), []

    def encode(text, **options):
        with busy:
            most.append(100 - busy._value)
            threading.Event().wait(0.01)
            return own(text, **options)

    monkeypatch.setattr(served_llm.tokenizer, "encode", encode)
    body, headers = json.dumps({"prompt": "x", "max_tokens": 1}), {"content-type": "application/json"}
    with serving(served_llm, running=4, waiting=64) as (base, _), ThreadPoolExecutor(24) as clients:
        url = f"{base}/v1/completions"
        answers = list(clients.map(lambda _: httpx.post(url, content=body, headers=headers, timeout=60), range(48)))
    assert {answer.status_code for answer in answers} == {200}
    assert max(most) == 2
