"""Every client's usual first example against a running server: `make clients`.

Each client is a program of its own in python/ or node/, run in the environment it was installed into, that takes the
server's URL and ends with status 0 if all went well. CI runs those that its own environment has (`test_clients.py`).
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ENVIRONMENTS = ROOT / ".clients"
TEXT = ROOT / "docs/benchmark-text/ordinary.txt"
CODEX = HERE / "node/node_modules/.bin/codex"

PYTHON = {
    "openai": "clients",
    "anthropic": "clients",
    "litellm": "clients",
    "langchain": "clients",
    "llama_index": "clients",
    "llm": "clients",
    "instructor": "clients",
    "pydantic_ai": "clients",
    "codex": "clients",
    "aider": "aider",
}
"""Client -> the environment in .clients/ that has it."""
NODE = ["openai", "ai_sdk"]


def run(*command: str | Path) -> str:
    """A client's output; it fails the test if the client fails."""
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-8000:]}"
    print(done.stdout)
    return done.stdout


@pytest.mark.parametrize("client", PYTHON)
def test_python_client(client, stand_in_url):
    more = [CODEX] if client == "codex" else []
    run(ENVIRONMENTS / PYTHON[client] / "bin/python", HERE / f"python/{client}_client.py", stand_in_url, *more)


@pytest.mark.parametrize("client", NODE)
def test_node_client(client, stand_in_url):
    run("node", HERE / f"node/{client}_client.mjs", stand_in_url)


def test_lm_evaluation_harness(demo_url):
    from outrider.checkpoints.demo import demo_path

    os.environ["HF_HUB_OFFLINE"] = "1"
    python = ENVIRONMENTS / "lm_eval/bin/python"
    run(python, HERE / "python/lm_eval_client.py", demo_url, demo_path(), TEXT)
