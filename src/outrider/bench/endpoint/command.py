"""`outrider bench endpoint`: the command."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from outrider.errors import UsageError


def endpoint(
    url: Annotated[str, typer.Argument(help="Of a server that speaks the OpenAI API.", show_default=False)],
    url2: Annotated[
        str | None, typer.Argument(help="Of another, measured in turns with the first.", show_default=False)
    ] = None,
    model: Annotated[str | None, typer.Option(help="The model to ask for.", show_default="the first listed")] = None,
    clients: Annotated[str, typer.Option(metavar="N,N,...", help="How many clients at once, one after another.")] = (
        "1,2,4,8"
    ),
    requests: Annotated[int, typer.Option(min=1, help="Requests of each number of clients, in each round.")] = 16,
    rounds: Annotated[int, typer.Option(min=1, help="How often everything is measured.")] = 2,
    max_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of an answer.")] = 64,
    temperature: Annotated[float, typer.Option(min=0.0)] = 0.0,
    chat: Annotated[bool, typer.Option("--chat/--completions", help="Which of the two routes is asked.")] = False,
    extra: Annotated[str, typer.Option(metavar="JSON", help="More fields of every request.")] = "{}",
    extra2: Annotated[
        str | None,
        typer.Option(metavar="JSON", help="The same for the other arm; without a second URL, at the first."),
    ] = None,
    api_key: Annotated[str | None, typer.Option(envvar="OPENAI_API_KEY", show_default=False)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Measure a server as its clients see it, or two in turns: speed, latency, and whether they say the same."""
    try:
        from outrider.bench.endpoint.client import Target
        from outrider.bench.endpoint.measure import Load
        from outrider.bench.endpoint.show import show_endpoint
    except ImportError as error:
        raise UsageError(f"measuring an endpoint needs {error.name}: pip install 'outrider[endpoint]'") from error
    from outrider.bench.suite import shipped_prompts

    targets = [Target(url, model, chat, api_key, _fields("--extra", extra))]
    if url2 is not None or extra2 is not None:
        targets.append(Target(url2 or url, model, chat, api_key, _fields("--extra2", extra2 or "{}")))
    prompts = [prompt.text for prompt in shipped_prompts(-(-requests // 8))]
    step = max(len(prompts) // requests, 1)  # of all categories alike
    load = Load(prompts[::step][:requests], _levels(clients), requests, rounds)
    result = asyncio.run(_measure(targets, load, max_tokens, temperature))
    if as_json:
        print(json.dumps(result))
    else:
        show_endpoint(result)


async def _measure(targets: list[Any], load: Any, max_tokens: int, temperature: float) -> dict[str, Any]:
    from outrider.bench.endpoint.client import Client
    from outrider.bench.endpoint.measure import measure_endpoint
    from outrider.terminal import error_console, progress_bar

    total = len(targets) * load.rounds * load.requests * len(load.levels)

    def announce(seconds: float) -> None:
        levels = ", ".join(map(str, load.levels))
        what = f"{total} requests by {levels} clients at once, answers of up to {max_tokens} tokens"
        error_console().print(f"{what}: about {max(seconds, 1):.0f} seconds.", style="dim")

    async with contextlib.AsyncExitStack() as stack:
        made = [
            await stack.enter_async_context(
                Client(target, max_tokens=max_tokens, temperature=temperature, connections=max(load.levels))
            )
            for target in targets
        ]
        for client in made:
            await client.check()
        with progress_bar() as progress:
            task = progress.add_task("asking", total=total)

            def advance(what: str) -> None:
                progress.update(task, description=what, advance=1)

            return await measure_endpoint(made, load, announce=announce, advance=advance)


def _levels(text: str) -> list[int]:
    try:
        levels = [int(part) for part in text.split(",")]
    except ValueError:
        levels = []
    if not levels or min(levels) < 1 or max(levels) > 1000:
        raise UsageError(f"--clients takes numbers from 1 to 1000 such as 1,2,4,8, not {text!r}")
    return levels


def _fields(flag: str, text: str) -> Mapping[str, Any]:
    try:
        fields = json.loads(text)
    except ValueError as error:
        raise UsageError(f"{flag} is no JSON: {error}") from error
    if not isinstance(fields, dict):
        raise UsageError(f'{flag} takes a JSON object such as {{"drafting": "off"}}, not {text}')
    return fields
