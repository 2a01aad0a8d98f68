"""The command with several models, as its user runs it."""

from __future__ import annotations

import signal
import subprocess
import sys

import openai
import pytest
from server.served_checkpoint import save_served

from outrider import LLM, SamplingParams

PROMPT = "Once upon a time there was"


@pytest.mark.slow
def test_the_demo_and_another_model(tmp_path):
    """Each answers what it answers alone, and the server ends as it should while both are loaded."""
    folder, _ = save_served(tmp_path)
    alone = {}
    for name, model in (("demo", "demo"), ("other", folder)):
        with LLM(model, drafter=None, context=256, progress=False) as llm:
            alone[name] = llm.generate(PROMPT, SamplingParams(max_tokens=24, temperature=0))[0].text
    command = [sys.executable, "-c", "from outrider.cli import main; main()", "serve", "demo", folder]
    options = ["--served-model-name", f"other={folder}", "--context", "256", "--port", "0"]
    with subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True) as server:
        try:
            line = next(line for line in server.stderr if " at http://" in line)
            client = openai.OpenAI(base_url=line.split(" at ")[1].split(",")[0], api_key="none", max_retries=0)
            assert [model.outrider["state"] for model in client.models.list()] == ["ready", "unloaded"]
            for name in ("demo", "other", "demo"):
                asked = {"model": name, "prompt": PROMPT, "max_tokens": 24, "temperature": 0}
                assert client.completions.create(**asked).choices[0].text == alone[name]
                chunks = client.completions.create(**asked, stream=True)
                assert "".join(chunk.choices[0].text for chunk in chunks) == alone[name]
            assert [model.outrider["state"] for model in client.models.list()] == ["ready", "ready"]
            with pytest.raises(openai.NotFoundError, match="there is no model third: this is demo or other"):
                client.completions.create(model="third", prompt=PROMPT)
        finally:
            server.send_signal(signal.SIGTERM)
            log = server.stderr.read()
    assert (server.returncode, "Traceback" in log) == (0, False), log
