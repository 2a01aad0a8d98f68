"""The core runs, and gives the same tokens, on processors that lack what this one has."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys

import pytest
from tiny_checkpoints import save_gguf

from outrider import LLM, SamplingParams

EMULATOR = shutil.which("qemu-x86_64")
PROMPT = [5, 9, 200, 31, 77]
PROGRAM = f"""
import json, sys
from outrider import LLM, SamplingParams
from outrider.backends import cpu
out = LLM(sys.argv[1], threads=1, context=256).generate([{PROMPT}], SamplingParams(max_tokens=8, ignore_end=True))[0]
json.dump([cpu.instruction_sets(), out.token_ids], sys.stdout)
"""


@pytest.mark.slow
@pytest.mark.skipif(EMULATOR is None or platform.machine() != "x86_64", reason="needs qemu-x86_64 on such a processor")
@pytest.mark.parametrize(("processor", "expected"), [("Haswell", ["avx2", "portable"]), ("Nehalem", ["portable"])])
def test_an_older_processor_gives_the_same_tokens(processor, expected, tiny, tmp_path):
    path = save_gguf(tiny("gemma4-e2b").model, tmp_path / "tiny.gguf")
    params = SamplingParams(max_tokens=8, ignore_end=True)
    here = LLM(path, threads=1, context=256).generate([PROMPT], params)[0].token_ids
    command = [EMULATOR, "-cpu", processor, sys.executable, "-c", PROGRAM, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [expected, list(here)]
