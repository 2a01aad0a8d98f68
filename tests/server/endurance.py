"""Sends a server thousands of requests of every kind, many of which leave in the middle, and looks at what is left.

usage: make endurance, or PYTHONPATH=tests python tests/server/endurance.py [--requests N] [--seed S] [--model demo]

Up to 24 clients at once send completions and chats, streamed or whole, sampled or greedy, with stops, penalties,
log-probabilities, grammars, demanded tools, several answers, prompts that begin alike; some are wrong, some come when
the queue is full, and one in six leaves: at once, before the first token, or in the middle. Afterwards the idle server
answers one in ten again, alone and without drafts, and must say the same. Its memory, its descriptors and its threads
must not have grown, and nothing may be held by a request that is gone. Exits with 1 and the request that shows it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

CLIENTS, RUNNING, WAITING = 24, 8, 24
CHECKED_OF, LEAVING_OF, WRONG_OF = 10, 6, 25
GROWTH_BYTES = 8 << 20
"""Of memory between the second quarter of the run and the last: 10,000 requests that lose 2 KB each are found."""
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"enum": ["x", "ab"]}}, "required": ["b"]}
TOOLS = [{"type": "function", "function": {"name": "find", "parameters": SCHEMA}}]
WRONG: list[dict[str, Any]] = [
    {"max_tokens": 0},
    {"temperature": "hot"},
    {"model": "another"},
    {"n": 99},
    {"regex": "("},
    {"prompt": "x" * 2000, "messages": [{"role": "user", "content": "x" * 2000}]},
    {"unknown": 1},
    {"logit_bias": {"999999999": 1}},
]


@dataclass
class Call:
    """One request, and what its client does."""

    number: int
    chat: bool
    body: dict[str, Any]
    leaves: str | None = None
    wrong: bool = False

    @property
    def path(self) -> str:
        return "/v1/chat/completions" if self.chat else "/v1/completions"


@dataclass
class Seen:
    """What became of the requests."""

    outcomes: Counter[str] = field(default_factory=Counter)
    answers: list[tuple[Call, Any]] = field(default_factory=list)
    problem: str | None = None


def random_call(rng: random.Random, number: int, *, chat: bool, most: int) -> Call:
    """Request `number` of a run."""
    begin = rng.choice(["", "Once upon a time ", "abab " * 12, '{"name": "a"} ' * 6])
    text = begin + "".join(rng.choice("abcdeij01 ") for _ in range(rng.randint(1, 60)))
    chat = chat and rng.random() < 0.5
    body: dict[str, Any] = {"max_tokens": rng.randint(1, most), "seed": rng.getrandbits(40)}
    body |= {"messages": [{"role": "user", "content": text}]} if chat else {"prompt": text}

    def perhaps(chance: float, name: str, *values: Any) -> None:
        if rng.random() < chance:
            body[name] = rng.choice(values)

    body["temperature"] = rng.choice([0.0, 0.0, 0.7, 1.0, 1.5])
    perhaps(0.5, "stream", True)
    perhaps(0.2, "n", 2, 3)
    perhaps(0.2, "top_k", 1, 5, 40)
    perhaps(0.2, "top_p", 0.5, 0.9)
    perhaps(0.1, "min_p", 0.05)
    perhaps(0.2, "repetition_penalty", 0.9, 1.2)
    perhaps(0.2, "presence_penalty", -0.5, 0.8)
    perhaps(0.2, "frequency_penalty", 0.3)
    perhaps(0.1, "min_tokens", 3)
    perhaps(0.1, "ignore_eos", True)
    perhaps(0.3, "stop", "a", ["b c", "1"], ["zz"], ["}"])
    perhaps(0.2, "logit_bias", {"40": 5.0, "41": -100.0})
    perhaps(0.4, "drafting", "off", 1, 4, 9)
    if chat:
        perhaps(0.2, "logprobs", True)
    else:
        perhaps(0.2, "logprobs", 0, 2)
    form = rng.random()
    if form < 0.1:
        body["regex"] = rng.choice(["[a-e ]{0,20}1", "(ab|c)*e"])
    elif form < 0.2:
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
    elif form < 0.3 and chat:
        body |= {"tools": TOOLS, "tool_choice": rng.choice(["auto", "required"])}
    if rng.randrange(WRONG_OF) == 0:
        wrong = dict(rng.choice(WRONG))
        wrong.pop("prompt" if chat else "messages", None)
        return Call(number, chat, body | wrong, wrong=True)
    if rng.randrange(LEAVING_OF) == 0:
        leaves = rng.choice(["at once", "before the first token", "in the middle"])
        return Call(number, chat, body | {"stream": True, "max_tokens": most, "ignore_eos": True}, leaves=leaves)
    return Call(number, chat, body)


async def send(client: httpx.AsyncClient, call: Call, rng: random.Random, seen: Seen) -> None:
    """Sends one request and does with it as its client does."""
    if call.leaves:
        seen.outcomes[await _leave(client, call, rng)] += 1
        return
    found = await client.post(call.path, json=call.body)
    if found.status_code == 429:
        seen.outcomes["refused"] += 1
        if int(found.headers["retry-after"]) < 1:
            seen.problem = f"429 without a time to come back: {found.headers}"
    elif call.wrong:
        seen.outcomes["wrong"] += 1
        if found.status_code not in (400, 404):
            seen.problem = f"{found.status_code} for a wrong request: {call.body}: {found.text[:300]}"
    elif found.status_code == 200:
        seen.outcomes["answered"] += 1
        if call.number % CHECKED_OF == 0:
            seen.answers.append((call, answer_of(found.text, call)))
    else:
        seen.problem = f"{found.status_code} for {call.body}: {found.text[:300]}"


async def _leave(client: httpx.AsyncClient, call: Call, rng: random.Random) -> str:
    try:
        if call.leaves == "at once":
            await asyncio.wait_for(client.post(call.path, json=call.body), rng.uniform(0.0, 0.02))
            return "answered"
        async with client.stream("POST", call.path, json=call.body) as stream:
            if call.leaves == "in the middle":
                left = rng.randint(1, 12)
                async for _ in stream.aiter_lines():
                    left -= 1
                    if left == 0:
                        break
    except (TimeoutError, httpx.HTTPError):
        pass
    return f"left {call.leaves}"


def answer_of(text: str, call: Call) -> Any:
    """What the request alone decides of an answer: of each choice its text, its thought, its calls and how it ended; of
    a whole answer the log-probabilities too."""
    if not call.body.get("stream"):
        whole = json.loads(text)
        return [_choice(c["message"] if call.chat else c, c["finish_reason"]) for c in whole["choices"]] + [
            [c["logprobs"] for c in whole["choices"]]
        ]
    parts: dict[int, dict[str, Any]] = {}
    for line in text.splitlines():
        if not line.startswith("data: {"):
            continue
        chunk = json.loads(line.removeprefix("data: "))
        if "error" in chunk:
            return chunk
        for c in chunk["choices"]:
            kept = parts.setdefault(c["index"], {"text": "", "content": "", "reasoning_content": "", "tool_calls": []})
            for name, value in (c.get("delta") or {"text": c.get("text")}).items():
                if name in kept and value:
                    kept[name] += value
            kept["finish_reason"] = c["finish_reason"]
    return [_choice(parts[i], parts[i]["finish_reason"]) for i in sorted(parts)]


def _choice(of: dict[str, Any], finish_reason: str) -> list[Any]:
    calls = [call["function"] for call in of.get("tool_calls") or ()]
    return [of.get("text") or of.get("content") or "", of.get("reasoning_content") or "", calls, finish_reason]


async def run(url: str, pid: int, requests: int, seed: int, *, chat: bool, most: int) -> Seen:
    """All requests, then the comparison."""
    rng, seen, numbers = random.Random(seed), Seen(), iter(range(requests))
    resident: list[int] = []
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=CLIENTS)
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits, trust_env=False) as client:

        async def one() -> None:
            for number in numbers:
                own = random.Random(f"{seed} {number}")
                await send(client, random_call(own, number, chat=chat, most=most), own, seen)
                if number % 50 == 0:
                    resident.append(resident_bytes(pid))
                    await asyncio.sleep(rng.uniform(0, 0.2))
                if number and number % 1000 == 0:
                    print(f"{number} requests, {resident[-1] / 1e6:.1f} MB", flush=True)
                if seen.problem:
                    return

        await asyncio.gather(*(one() for _ in range(CLIENTS)))
        seen.problem = seen.problem or await _settle(client)
        for call, answer in seen.answers:
            if seen.problem:
                break
            again = (await client.post(call.path, json=call.body | {"drafting": "off"})).text
            if (alone := answer_of(again, call)) != answer:
                seen.problem = f"request {call.number} of --seed {seed} differs:\n{call.body}\n{answer}\n{alone}"
    seen.problem = seen.problem or growth(resident)
    return seen


async def _settle(client: httpx.AsyncClient) -> str | None:
    """Waits until the server is idle; what is then still held."""
    until = time.monotonic() + 20
    while True:
        health = (await client.get("/health")).json()
        if health["running"] == health["waiting"] == 0:
            break
        if time.monotonic() > until:
            return f"requests that are gone hold places: {health}"
        await asyncio.sleep(0.05)
    metrics = (await client.get("/metrics")).text
    free = "\noutrider_kv_cache_sequences_in_use 0.0\n" in metrics
    return None if free else f"requests that are gone hold keys and values:\n{metrics}"


def growth(resident: list[int]) -> str | None:
    """Whether memory grew after the first half; looked at only if there is enough to look at."""
    quarter = len(resident) // 4
    if quarter < 4:
        return None
    before, after = max(resident[quarter : 2 * quarter]), max(resident[3 * quarter :])
    return None if after - before <= GROWTH_BYTES else f"memory grew from {before / 1e6:.1f} to {after / 1e6:.1f} MB"


def resident_bytes(pid: int) -> int:
    """Memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def descriptors_and_threads(pid: int) -> tuple[int, int]:
    """How many of each a process has."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir())), len(list(Path(f"/proc/{pid}/task").iterdir()))


def endure(model: str, requests: int, seed: int) -> int:
    """Starts a server in a process of its own and runs; the exit status."""
    context = multiprocessing.get_context("spawn")
    ready, stop = context.Queue(), context.Event()
    with tempfile.TemporaryDirectory() as folder:
        server = context.Process(target=_serve, args=(model, folder, ready, stop))
        server.start()
        try:
            url = ready.get(timeout=120)
            assert server.pid is not None
            # The first requests build what stays.
            started = time.monotonic()
            asyncio.run(run(url, server.pid, CLIENTS * 4, seed - 1, chat=model == "tiny", most=40))
            had = descriptors_and_threads(server.pid)
            seen = asyncio.run(run(url, server.pid, requests, seed, chat=model == "tiny", most=40))
            until = time.monotonic() + 15
            while (has := descriptors_and_threads(server.pid)) > had and time.monotonic() < until:
                time.sleep(0.2)
            if has[0] > had[0] + 2 or has[1] > had[1] + 2:
                seen.problem = seen.problem or f"descriptors and threads grew from {had} to {has}"
        finally:
            stop.set()
            server.join(60)
            server.kill()
    print(f"{requests} requests in {time.monotonic() - started:.0f} s: {dict(seen.outcomes)}")
    if seen.problem:
        print(f"FAILED: {seen.problem}", file=sys.stderr)
        return 1
    print(f"{len(seen.answers)} answers equal those of a run alone without drafts; nothing is held, memory is flat")
    return 0


def _serve(model: str, folder: str, ready: Any, stop: Any) -> None:
    import gguf
    from json_tokenizer import speak_json
    from server.conftest import GEMMA
    from serving import serving
    from tiny_checkpoints import make_assistant, make_model, save_folder, save_gguf

    from outrider import LLM
    from outrider.tokenizer.chat_template import ChatTemplate

    options: dict[str, Any] = {"lookup_history": 2048, "prefix_cache_bytes": 4 << 20}
    if model == "demo":
        llm = LLM("demo", context=1024, **options)
    else:
        target = make_model("gemma4-e2b")
        path = save_gguf(target, Path(folder) / "tiny.gguf", gguf.GGMLQuantizationType.Q4_0)
        drafter = save_folder(make_assistant(target.config.get_text_config(), ordered=True, seed=0), Path(folder) / "d")
        llm = LLM(path, drafter=drafter, threads=1, context=512, **options)
        speak_json(llm)
        llm.chat = ChatTemplate(GEMMA, bos="")
    with serving(llm, running=RUNNING, waiting=WAITING) as (url, _):
        ready.put(url)
        stop.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--model", choices=("tiny", "demo"), default="tiny")
    arguments = parser.parse_args()
    sys.exit(endure(arguments.model, arguments.requests, arguments.seed))
