"""aider: one edit of a file in a repository, by its search-and-replace blocks. Takes the server's URL."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx

url = sys.argv[1]
model = httpx.get(f"{url}/v1/models").json()["data"][0]["id"]
with tempfile.TemporaryDirectory() as folder:
    source = Path(folder, "greeting.py")
    source.write_text('def greet():\n    return "hello"\n')
    aider = str(Path(sys.executable).with_name("aider"))
    command = [aider, "--model", f"openai/{model}", "--edit-format", "diff", "--no-git", "--yes-always"]
    command += ["--no-check-update", "--no-show-model-warnings", "--no-analytics", "--map-tokens", "0"]
    command += ["--message", "Make greet say goodbye", "greeting.py"]
    for stream in ("--stream", "--no-stream"):
        source.write_text('def greet():\n    return "hello"\n')
        environment = os.environ | {
            "OPENAI_API_BASE": f"{url}/v1",
            "OPENAI_API_KEY": "none",
            "HOME": folder,
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        }
        done = subprocess.run(
            [*command, stream], env=environment, cwd=folder, capture_output=True, text=True, timeout=300, check=False
        )
        assert source.read_text() == 'def greet():\n    return "goodbye"\n', done.stdout + done.stderr
        print(stream.removeprefix("--"))
