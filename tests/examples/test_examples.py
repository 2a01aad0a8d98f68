"""Every example runs as its first lines say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from server.served_checkpoint import save_served
from serving import serving

from outrider import LLM

EXAMPLES = Path(__file__).parents[2] / "examples"
pytestmark = pytest.mark.slow


def ran(name: str, *arguments: str) -> str:
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_served(tmp_path_factory.mktemp("examples"))[0]


@pytest.fixture(scope="module")
def url(model):
    with LLM(model, context=512, threads=1) as llm, serving(llm) as (base, _):
        yield base


def test_offline():
    assert "tokens per pass" in ran("offline.py")


def test_streaming():
    assert ran("streaming.py").endswith("\n[length]\n")


def test_json_schema():
    said, passes = ran("json_schema.py").splitlines()
    assert said.startswith("{'city': ")
    assert float(passes.split()[0]) > 1


def test_drafter():
    accepted, _, drafted = ran("drafter.py").splitlines()[-1].split()[:3]
    assert 0 < int(accepted) <= int(drafted)


def test_my_prompts(tmp_path):
    (tmp_path / "prompts.txt").write_text("Once upon a time\n\nThe capital of France is\n")
    assert ran("my_prompts.py", str(tmp_path / "prompts.txt")).count("times as fast") == 3


def test_tools(model):
    assert ran("tools.py", str(model)).endswith("\n")


def test_openai_client(url):
    assert "tokens: {" in ran("openai_client.py", url)


def test_anthropic_client(url):
    assert ran("anthropic_client.py", url).endswith("\n")


def test_notebook(monkeypatch):
    monkeypatch.setitem(os.environ, "MPLBACKEND", "agg")
    cells = json.loads((EXAMPLES / "draft_length.ipynb").read_text())["cells"]
    names: dict[str, object] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            assert not cell["outputs"]
            exec("".join(cell["source"]), names)
    assert len(names["runs"]) == len(names["settings"])  # type: ignore[arg-type]


def test_every_example_is_listed():
    listed = (EXAMPLES / "README.md").read_text()
    assert all(
        f"]({path.name})" in listed for path in EXAMPLES.iterdir() if path.name not in ("README.md", "__pycache__")
    )
