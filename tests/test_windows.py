"""The Python code on Windows, as far as another system can show it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from as_on_windows import PARAMS, PROMPT

from outrider import LLM, SamplingParams


@pytest.mark.slow
def test_what_windows_lacks_is_used_for_no_other_system(tiny, tmp_path):
    model = tiny("gemma3").gguf
    command = [sys.executable, Path(__file__).parent / "as_on_windows.py", model, tmp_path / "home" / "pages"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    expected = LLM(model).generate(PROMPT, SamplingParams(**PARAMS))[0].token_ids
    assert found["token_ids"] == list(expected)
    assert "4 physical cores of 5 hyper-threads, 2 performance cores of 4" in found["cores"]
    assert found["memory"] == 3 << 30
    assert found["remedy"].startswith("name one in your own folder")
