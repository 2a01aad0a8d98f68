"""`outrider bench`: the commands."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from time import monotonic
from typing import Annotated

import typer

from outrider.bench.peer import Peer, installed, open_peer
from outrider.bench.prompt import PromptFormat, format_for
from outrider.console import (
    DrafterOption,
    JsonOption,
    KvCacheDtype,
    KvCacheOption,
    LookupOption,
    ModelArgument,
    Quantize,
    QuantizeOption,
    ThreadsOption,
    load_model,
    print_result,
    show_error,
)
from outrider.errors import UsageError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Measure passes and drafting on this machine, or any server.",
)

Against = Annotated[
    Peer | None,
    typer.Option(help="Software to measure on the same file, interleaved.", callback=installed, show_default="none"),
]

_CONTEXT, _ROUNDS = 128, 15
"""Of `bench verify`, and of the passes in a report."""


@app.command()
def verify(
    model: ModelArgument,
    against: Against = None,
    context: Annotated[int, typer.Option(min=0, metavar="TOKENS", help="Context before the measured rows.")] = _CONTEXT,
    rounds: Annotated[int, typer.Option(min=1, help="Number of rounds over all row counts.")] = _ROUNDS,
    quantize: QuantizeOption = Quantize.none,
    kv_cache_dtype: KvCacheOption = KvCacheDtype.int8,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Time a pass over 1, 2, 4, 8 and 16 rows.

    It is the cost of verifying a draft.
    """
    from outrider.bench.passes import measure_verify, show_verify

    llm = load_model(model, quantize=quantize, kv_cache_dtype=kv_cache_dtype, drafter=None, threads=threads)
    with open_peer(against, llm) as peer:
        result = measure_verify(llm, peer, context=context, rounds=rounds)
    print_result(result, show_verify, as_json)


@app.command()
def prefill(
    model: ModelArgument,
    against: Against = None,
    tokens: Annotated[int, typer.Option(min=1, metavar="TOKENS", help="Prompt length.")] = 512,
    rounds: Annotated[int, typer.Option(min=1, help="Number of rounds.")] = 5,
    quantize: QuantizeOption = Quantize.none,
    kv_cache_dtype: KvCacheOption = KvCacheDtype.int8,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Time the prefill of a prompt."""
    from outrider.bench.passes import measure_prefill, show_prefill

    llm = load_model(model, quantize=quantize, kv_cache_dtype=kv_cache_dtype, drafter=None, threads=threads)
    with open_peer(against, llm) as peer:
        result = measure_prefill(llm, peer, tokens=tokens, rounds=rounds)
    print_result(result, show_prefill, as_json)


@app.command()
def decode(
    model: ModelArgument,
    against: Against = None,
    seconds: Annotated[
        float,
        typer.Option(min=0, metavar="SECONDS", help="Time budget; every prompt is decoded at least once in each way."),
    ] = 120.0,
    max_tokens: Annotated[int, typer.Option(min=2, metavar="TOKENS", help="Maximum length of an answer.")] = 64,
    suite: Annotated[
        str,
        typer.Option(
            metavar="shipped|FILE",
            help='Prompts: those that ship, or JSON lines with "prompt", "messages" or, as in Spec-Bench, "turns".',
        ),
    ] = "shipped",
    category: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Category to decode; may be repeated.",
            show_default="all; of those that ship, all but tool-calls, schemas and rewrites",
        ),
    ] = None,
    prompts: Annotated[
        int | None,
        typer.Option(min=1, help="Number of prompts of each category; 20 ship.", show_default="4; all of a FILE"),
    ] = None,
    prompt_format: Annotated[
        PromptFormat,
        typer.Option(help="Text to continue, or chat messages; auto: by the chat template."),
    ] = PromptFormat.auto,
    drafter: DrafterOption = "auto",
    lookup: LookupOption = True,
    temperature: Annotated[float, typer.Option(min=0.0, help="Sampling temperature; 0 is greedy.")] = 0.0,
    top_k: Annotated[int, typer.Option(min=0, help="Top-k sampling; 0 is off.")] = 0,
    top_p: Annotated[float, typer.Option(help="Top-p (nucleus) sampling; 1 is off.")] = 1.0,
    quantize: QuantizeOption = Quantize.none,
    kv_cache_dtype: KvCacheOption = KvCacheDtype.int8,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder for a page with the figures; passes are measured too, in the same time budget.",
            show_default="none",
        ),
    ] = None,
) -> None:
    """Decode prompts with and without drafting, in interleaved pairs. Exits with 1 if any tokens differ."""
    from outrider import SamplingParams
    from outrider.bench.decode import measure_decode, show_decode
    from outrider.bench.pairs import PairDecoder, longest_prompt
    from outrider.bench.passes import measure_verify
    from outrider.bench.report import make_folder, write_report
    from outrider.bench.suite import choose_prompts
    from outrider.console import error_console

    sampling = SamplingParams(max_tokens=max_tokens, temperature=temperature, top_k=top_k, top_p=top_p)
    prompts_in = choose_prompts(suite, category or (), prompts)
    if report is not None:
        make_folder(report)
    llm = load_model(
        model,
        quantize=quantize,
        kv_cache_dtype=kv_cache_dtype,
        drafter=None if drafter == "off" else drafter,
        lookup=lookup,
        threads=threads,
    )
    prompt_format = format_for(llm, prompt_format)
    chosen = prompts_in(prompt_format)
    longest = longest_prompt(chosen, llm, sampling)
    with open_peer(against, llm, context=longest + max_tokens) as peer:
        started = monotonic()
        if report is not None:
            curve = measure_verify(llm, peer, context=_CONTEXT, rounds=_ROUNDS)
        left = max(seconds - (monotonic() - started), 0.0)
        result = measure_decode(PairDecoder(llm, peer, sampling), chosen, left)
    result |= {"suite": Path(suite).name, "prompt_format": prompt_format.value}
    print_result(result, show_decode, as_json)
    if report is not None:
        page = write_report(report, result, curve, shlex.join(["outrider", *sys.argv[1:]]))
        error_console().print(f"report: {page}", markup=False)
    if not result["total"]["identical"]:
        differing = [name for name, of in result["categories"].items() if not of["identical"]]
        show_error(f"drafting changed the tokens of prompts in: {', '.join(differing)}. This is a bug in outrider")
        raise typer.Exit(1)


@app.command()
def endpoint(
    url: Annotated[
        str, typer.Argument(metavar="URL", help="Address of a server, e.g. http://127.0.0.1:8000.", show_default=False)
    ],
    url2: Annotated[
        str | None,
        typer.Argument(
            metavar="URL2", help="Address of a second server, interleaved with the first.", show_default=False
        ),
    ] = None,
    model: Annotated[
        str, typer.Option(metavar="NAME", help="Model name.", show_default="the first that the server lists")
    ] = "",
    clients: Annotated[
        str, typer.Option(metavar="N,...", help="Numbers of concurrent clients, measured one after the other.")
    ] = "1,2,4,8",
    requests: Annotated[
        int, typer.Option(min=1, help="Requests for each number of clients, at least one per client and turn.")
    ] = 16,
    max_tokens: Annotated[int, typer.Option(min=1, metavar="TOKENS", help="Maximum length of an answer.")] = 64,
    temperature: Annotated[float, typer.Option(min=0, help="Sampling temperature; 0 is greedy.")] = 0.0,
    api_key: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            envvar="OPENAI_API_KEY",
            help="API key, sent to URL and URL2 as bearer token.",
            show_default="none",
        ),
    ] = None,
    chat: Annotated[bool, typer.Option("--chat/--completions", help="Route of the requests.")] = False,
    extra: Annotated[
        str | None,
        typer.Option(
            metavar="JSON", help="Extra fields of the requests to URL; null removes a field.", show_default="none"
        ),
    ] = None,
    extra2: Annotated[
        str | None,
        typer.Option(
            metavar="JSON",
            help="Extra fields of the requests to URL2, or, without it, to URL in a second arm.",
            show_default="none",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure any OpenAI-compatible server as its clients see it.

    Alone or against another. Needs the extra "endpoint". Exits with 1 if no request of an arm is answered.
    """
    try:
        import httpx  # noqa: F401
        import prometheus_client  # noqa: F401
    except ImportError as error:
        raise UsageError(f"measuring a server needs {error.name}: pip install 'outrider[endpoint]'") from error
    import asyncio

    from outrider.bench.endpoint.measure import client_counts, measure_endpoint, unanswered
    from outrider.bench.endpoint.server import two_arms
    from outrider.bench.endpoint.show import show_endpoint

    arms = two_arms(
        (url, url2), (extra, extra2), chat=chat, model=model, max_tokens=max_tokens, temperature=temperature
    )
    result = asyncio.run(measure_endpoint(arms, client_counts(clients), requests, api_key))
    print_result(result, show_endpoint, as_json)
    silent = unanswered(result)
    if silent:
        show_error(f"no request was answered by {' and '.join(silent)}: see the failures, and the server's log")
        raise typer.Exit(1)
