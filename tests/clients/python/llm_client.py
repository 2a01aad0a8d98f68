"""The command-line tool `llm`, with the server in its extra-openai-models.yaml."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import openai

base = f"{sys.argv[1]}/v1"
model = openai.OpenAI(base_url=base, api_key="none").models.list().data[0].id
with tempfile.TemporaryDirectory() as home:
    entry = f"- model_id: outrider\n  model_name: {model}\n  api_base: {base}\n  supports_tools: true\n"
    Path(home, "extra-openai-models.yaml").write_text(entry + "  supports_schema: true\n")
    environment = os.environ | {"LLM_USER_PATH": home, "OPENAI_API_KEY": "none"}

    def run(*arguments: str) -> str:
        command = [str(Path(sys.executable).with_name("llm")), "-m", "outrider", *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    assert run("Hello") == run("Hello", "--no-stream") == "Hello from the stand-in."
    print("prompt")
    assert run("Extract: Ada is 36", "--schema", "name, age int") == '{"name": "Ada", "age": 36}'
    print("schema")
    weather = 'def get_weather(city: str) -> str:\n    "Reports the weather"\n    return "rain in " + city\n'
    said = run("What is the weather in Oslo?", "--functions", weather)
    assert said.endswith("The tool says: rain in Oslo"), said
    print("functions")
