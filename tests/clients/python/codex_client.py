"""OpenAI's Codex client over /v1/responses: a task in a folder, which the model does by a shell call.

Takes the server's URL and the path of the `codex` program.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx

url, codex = sys.argv[1:3]
model = httpx.get(f"{url}/v1/models").json()["data"][0]["id"]
with tempfile.TemporaryDirectory() as home, tempfile.TemporaryDirectory() as folder:
    settings = {
        "model": model,
        "model_provider": "outrider",
        "model_providers.outrider.name": "outrider",
        "model_providers.outrider.base_url": f"{url}/v1",
        "model_providers.outrider.wire_api": "responses",
        "model_context_window": 65536,
    }
    options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
    options += ["--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", "-C", folder]
    command = [codex, "exec", *options, "Create hello.txt with the word hello."]
    environment = os.environ | {"CODEX_HOME": home}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=300, check=False, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stderr
    assert Path(folder, "hello.txt").read_text() == "hello\n", done.stderr
    assert done.stdout.strip().startswith("The tool says:"), done.stdout
print("exec")
