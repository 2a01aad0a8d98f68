"""Tokens a second of `outrider batch`, of a server that gets the same requests at once, and what rows of passes allow.

usage: python -m benchmarks.batch_throughput MODEL [--requests 128] [--max-tokens 64] [--rounds 3] [--against URL]
Greedy completions of the shipped prompts, no two alike, in turns; with --against also of another server, which stands
idle meanwhile, such as `llama-server -m DEMO.gguf -t 2 -np 8 -c 16384`. Bound: from 8 rows on arithmetic bounds a pass,
so more requests at once bring no more than 8 tokens in the time by which 16 rows take longer than 8; drafts can only
bring them at fewer rows. The bound knows no prompts; rows a second count their tokens too. Nothing else may run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import httpx

from outrider import LLM, SamplingParams
from outrider.bench.prompt import PromptFormat, format_for, render
from outrider.bench.suite import choose_prompts

CONTEXT = 128
LONGEST = 512
"""Longer prompts are left out: computing them is another figure."""
COMMAND = [sys.executable, "-c", "from outrider.cli import main; main()"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--requests", type=int, default=128)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--against", metavar="URL", help="another server of the same model, without /v1")
    arguments = parser.parse_args()
    bodies, allowed = prepared(arguments.model, arguments.requests, arguments.max_tokens)
    speeds: dict[str, list[float]] = {"batch": [], "server": []}
    with tempfile.TemporaryDirectory() as folder, served(arguments.model, arguments.requests) as url:
        for _ in range(arguments.rounds):
            speeds["batch"].append(batch(arguments.model, bodies, Path(folder)))
            speeds["server"].append(asyncio.run(clients(url, bodies)))
            if arguments.against:
                speeds.setdefault("against", []).append(asyncio.run(clients(arguments.against, bodies)))
    prompts, answers = sum(len(body["prompt"]) for body in bodies), len(bodies) * arguments.max_tokens
    print(f"{prompts} tokens of prompts, {answers} of answers; rows allow {allowed:.0f} a second")
    for name, measured in speeds.items():
        least, most, middle = min(measured), max(measured), median(measured)
        rows = middle * (1 + prompts / answers)
        print(f"{name:7} {middle:.0f} tok/s ({least:.0f} to {most:.0f}), {middle / allowed:.2f} of it; {rows:.0f} rows")


def prepared(model: str, requests: int, max_tokens: int) -> tuple[list[dict[str, Any]], float]:
    """Bodies of requests, and the tokens a second that 8 more rows of a pass bring."""
    llm = LLM(model)
    few, many = (median(llm.parts.measure.verify(rows, CONTEXT, 15)) for rows in (8, 16))
    prompts = choose_prompts("shipped", [], requests)(format_for(llm, PromptFormat.auto))
    rendered = (render(prompt, llm, SamplingParams())[0] for prompt in prompts)
    ids = [one for one in rendered if len(one) <= LONGEST][:requests]
    common = {"max_tokens": max_tokens, "temperature": 0, "ignore_eos": True}
    return [{"model": model, "prompt": list(one), **common} for one in ids], 8 / (many - few)


def batch(model: str, bodies: list[dict[str, Any]], folder: Path) -> float:
    """Tokens a second of the command."""
    file, out = folder / "requests.jsonl", folder / "answers.jsonl"
    out.unlink(missing_ok=True)
    lines = (
        json.dumps({"custom_id": str(number), "method": "POST", "url": "/v1/completions", "body": body})
        for number, body in enumerate(bodies)
    )
    file.write_text("\n".join(lines))
    command = [*COMMAND, "batch", str(file), "--out", str(out), "--model", model, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return float(json.loads(done.stdout)["tokens_per_second"])


@contextmanager
def served(model: str, waiting: int) -> Iterator[str]:
    """A server with its default options but for the queue; idle while the command runs."""
    with tempfile.NamedTemporaryFile() as log:
        server = subprocess.Popen(
            [*COMMAND, "serve", model, "--port", "0", "--waiting", str(waiting)], stdout=log, stderr=log
        )
        try:
            while not (found := re.search(r" at (http://\S+)/v1", Path(log.name).read_text())):
                if server.poll() is not None:
                    raise SystemExit(f"the server did not start:\n{Path(log.name).read_text()}")
                time.sleep(0.1)
            yield found[1]
        finally:
            server.terminate()
            server.wait()


async def clients(url: str, bodies: list[dict[str, Any]]) -> float:
    """Tokens a second of a server that gets all requests at once, without what it has cached."""

    async def one(client: httpx.AsyncClient, body: dict[str, Any]) -> int:
        answer = await client.post(f"{url}/v1/completions", json={**body, "model": None, "cache_prompt": False})
        return int(answer.raise_for_status().json()["usage"]["completion_tokens"])

    began = time.perf_counter()
    async with httpx.AsyncClient(timeout=None) as client:
        tokens = await asyncio.gather(*(one(client, body) for body in bodies))
    return sum(tokens) / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
