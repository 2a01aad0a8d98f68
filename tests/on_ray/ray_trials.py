"""What 200 clients of replicas on Ray see while things fail around them: each answer is checked, each failure counted.

usage: PYTHONPATH=tests python tests/on_ray/ray_trials.py [--clients 200] [--seconds 120]

A cluster of two nodes on this machine has three replicas of the demo, and its proxy is on the first. In turn a replica
is killed, all processes of the second node are, and another drafter is rolled out. Half of the clients stream. Each
request counts where it began.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable

import httpx
import psutil
import ray
from ray import serve
from ray.cluster_utils import Cluster
from rich.console import Console
from rich.table import Table

from outrider import LLM, SamplingParams
from outrider.ray import app

PROMPTS = [f"The {thing} of the harbour" for thing in ("master", "lights", "history", "smell", "gulls", "end", "cats")]
TOKENS = 12
NODE = {"num_cpus": 2, "include_dashboard": False, "object_store_memory": 100 << 20}
URL = "http://127.0.0.1:8123/v1/completions"
OUTCOMES = ("right", "wrong", "refused", "error", "lost")
"""Of a request: an answer that is or is not the expected; 429 or 503; another error, in HTTP or in its stream; neither
an answer nor an error."""


def expected() -> dict[str, str]:
    """The answer to each prompt, without Ray."""
    llm = LLM("demo", context=512)
    outputs = llm.generate(PROMPTS, SamplingParams(max_tokens=TOKENS))
    llm.close()
    return {prompt: output.text for prompt, output in zip(PROMPTS, outputs, strict=True)}


async def clients(count: int, until: float, right: dict[str, str], seen: list[tuple[float, str]]) -> None:
    """Clients who ask again and again; `seen` gets the time and the outcome of each request."""

    async def one(number: int) -> None:
        async with httpx.AsyncClient(timeout=600) as http:
            for turn in itertools.count(number):
                if time.monotonic() > until:
                    return
                prompt = PROMPTS[turn % len(PROMPTS)]
                ask = streamed if number % 2 else whole
                seen.append((time.monotonic(), await ask(http, prompt, right[prompt])))
                if seen[-1][1] == "refused":
                    await asyncio.sleep(1)

    await asyncio.gather(*map(one, range(count)))


def body(prompt: str, stream: bool) -> dict[str, object]:
    """A greedy request."""
    common = {"model": "demo", "prompt": prompt, "max_tokens": TOKENS, "temperature": 0}
    return common | {"stream": stream}


async def whole(http: httpx.AsyncClient, prompt: str, right: str) -> str:
    """The outcome of a request whose answer comes at once."""
    try:
        answer = await http.post(URL, json=body(prompt, False))
        if answer.status_code != 200:
            return refusal(answer.status_code, answer.json())
        return "right" if answer.json()["choices"][0]["text"] == right else "wrong"
    except (httpx.HTTPError, ValueError, KeyError):
        return "lost"


async def streamed(http: httpx.AsyncClient, prompt: str, right: str) -> str:
    """The outcome of a request whose answer comes in events; what has come must be right, whatever follows."""
    text = ""
    try:
        async with http.stream("POST", URL, json=body(prompt, True)) as answer:
            if answer.status_code != 200:
                return refusal(answer.status_code, json.loads(await answer.aread()))
            async for line in answer.aiter_lines():
                if line == "data: [DONE]":
                    return "right" if text == right else "wrong"
                if line.startswith("data: "):
                    event = json.loads(line.removeprefix("data: "))
                    if "error" in event:
                        return "error" if right.startswith(text) else "wrong"
                    text += event["choices"][0]["text"]
    except (httpx.HTTPError, ValueError, KeyError):
        pass
    return "lost"


def refusal(status: int, answer: dict[str, dict[str, str]]) -> str:
    """The outcome of an answer with an error, whose body has to say what is wrong."""
    if not answer["error"]["message"]:
        return "lost"
    return "refused" if status in (429, 503) else "error"


def kill_replica() -> None:
    """SIGKILL for one process that has a model."""
    for process in psutil.process_iter(["cmdline"]):
        if "ServeReplica:outrider:Model" in " ".join(process.info["cmdline"] or []):
            process.kill()
            return
    raise RuntimeError("no replica runs")


def deploy(**llm: object) -> None:
    """Starts the application, or rolls it out anew; returns when all replicas are."""
    arguments = {"model": "demo", "replicas": 3, "threads": 1, "context": 512, "llm": llm}
    serve.run(app(arguments), name="outrider")


def trials(cluster: Cluster, count: int, seconds: float) -> list[tuple[str, Counter[str]]]:
    """Each phase and what its requests came to."""
    node = cluster.worker_nodes.copy().pop()
    steps: list[tuple[str, Callable[[], object]]] = [
        ("nothing", lambda: None),
        ("a replica is killed", kill_replica),
        ("a node is killed", lambda: cluster.remove_node(node, allow_graceful=False)),
        ("it returns, another drafter is rolled out", lambda: (cluster.add_node(**NODE), deploy(drafter=None))),
    ]
    right, seen, starts = expected(), [], []
    began = time.monotonic()
    asking = threading.Thread(target=lambda: asyncio.run(clients(count, began + seconds, right, seen)))
    asking.start()
    for name, step in steps:
        starts.append((time.monotonic(), name))
        step()  # in this thread: a node's start sets signal handlers
        time.sleep(max(0.0, began + len(starts) * seconds / len(steps) - time.monotonic()))
    asking.join()
    ends = [*(at for at, _ in starts[1:]), float("inf")]
    return [
        (name, Counter(outcome for when, outcome in seen if at <= when < end))
        for (at, name), end in zip(starts, ends, strict=True)
    ]


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=120.0)
    given = parser.parse_args()
    cluster = Cluster(initialize_head=True, head_node_args=NODE)
    cluster.add_node(**NODE)
    ray.init(address=cluster.address, namespace="serve", log_to_driver=False, logging_level=logging.ERROR)
    try:
        serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": httpx.URL(URL).port})
        deploy()
        found = trials(cluster, given.clients, given.seconds)
    finally:
        serve.shutdown()
        ray.shutdown()
        cluster.shutdown()
    table = Table("what happens", *OUTCOMES)
    for name, counted in found:
        table.add_row(name, *(str(counted[outcome]) for outcome in OUTCOMES))
    Console().print(table)
    if any(counted["wrong"] or counted["lost"] for _, counted in found):
        raise SystemExit("a request was lost, or answered wrong")


if __name__ == "__main__":
    main()
