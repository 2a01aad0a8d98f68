"""`outrider bench`: the commands."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from outrider.bench.peers import Peer, open_peer
from outrider.bench.prompt import Form, form_for
from outrider.console import DrafterOption, KvCacheDtype, KvCacheOption, Quantize, QuantizeOption
from outrider.errors import UsageError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Measure what a pass costs and what drafting brings on this machine, and any server.",
)

Model = Annotated[str, typer.Argument(help='"demo", a .gguf file, a folder, or a hub id.', show_default=False)]
Against = Annotated[Peer | None, typer.Option(help="Measure this software on the same file, in turns.")]
PeerPython = Annotated[
    Path | None, typer.Option(help="A Python that has llama-cpp-python.", show_default="the one that runs this")
]
Threads = Annotated[int | None, typer.Option(help="Threads to compute with.", show_default="all cores")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
_VERIFY_ROUNDS = 15
"""On a machine that changes its pace half of them count, and those have to be enough for a median."""


@app.command()
def verify(
    model: Model,
    against: Against = None,
    peer_python: PeerPython = None,
    context: Annotated[int, typer.Option(min=0, help="Tokens before the measured rows.")] = 128,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of every row count.")] = _VERIFY_ROUNDS,
    quantize: QuantizeOption = Quantize.none,
    kv_cache_dtype: KvCacheOption = KvCacheDtype.float16,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Time a pass over 1, 2, 4, 8 and 16 rows: what verifying a draft costs."""
    from outrider.bench.curves import measure_verify, memory_limit, show_verify
    from outrider.console import load_model

    llm = load_model(model, quantize=quantize, kv_cache_dtype=kv_cache_dtype, drafter=None, threads=threads)
    with open_peer(against, peer_python, llm) as peer:
        limit = memory_limit(llm)
        result = measure_verify(llm, peer, context=context, rounds=rounds) | limit.as_dict()
    _print(result, show_verify, as_json)


@app.command()
def prefill(
    model: Model,
    against: Against = None,
    peer_python: PeerPython = None,
    tokens: Annotated[int, typer.Option(min=1, help="Length of the prompt.")] = 512,
    rounds: Annotated[int, typer.Option(min=1, help="How often it is computed.")] = 5,
    quantize: QuantizeOption = Quantize.none,
    kv_cache_dtype: KvCacheOption = KvCacheDtype.float16,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Time the computing of a prompt."""
    from outrider.bench.curves import measure_prefill, show_prefill
    from outrider.console import load_model

    llm = load_model(model, quantize=quantize, kv_cache_dtype=kv_cache_dtype, drafter=None, threads=threads)
    with open_peer(against, peer_python, llm) as peer:
        result = measure_prefill(llm, peer, tokens=tokens, rounds=rounds)
    _print(result, show_prefill, as_json)


@app.command()
def decode(
    model: Model,
    against: Against = None,
    peer_python: PeerPython = None,
    max_tokens: Annotated[int, typer.Option(min=2, help="Most tokens of an answer.")] = 64,
    rounds: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="How often every prompt is decoded in each way.",
            show_default="as often as fits into some four minutes, at most 8 times",
        ),
    ] = None,
    suite: Annotated[
        str,
        typer.Option(
            metavar="shipped|FILE", help='JSON lines with "prompt", "messages" or, as in Spec-Bench, "turns".'
        ),
    ] = "shipped",
    category: Annotated[
        list[str] | None,
        typer.Option(help="Only this category; give it several times for several.", show_default="all"),
    ] = None,
    prompts: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Prompts of each category; 20 ship.",
            show_default="4; all of a FILE",
        ),
    ] = None,
    form: Annotated[
        Form, typer.Option(help="A text to go on from, or a message to answer; auto: chat if there is a chat template.")
    ] = Form.auto,
    drafter: DrafterOption = "auto",
    lookup: Annotated[
        bool, typer.Option("--lookup/--no-lookup", help="Draft what prompt and answer already said.")
    ] = True,
    temperature: Annotated[
        float, typer.Option(min=0.0, help="0 takes the most likely token; more is more varied.")
    ] = 0.0,
    top_k: Annotated[int, typer.Option(min=0, help="Draw from so many of the likeliest tokens; 0: from all.")] = 0,
    top_p: Annotated[float, typer.Option(help="Draw from the likeliest that together have this probability.")] = 1.0,
    quantize: QuantizeOption = Quantize.none,
    kv_cache_dtype: KvCacheOption = KvCacheDtype.float16,
    threads: Threads = None,
    as_json: AsJson = False,
    report: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Measure passes too, and write a page with plots into DIR.")
    ] = None,
    note: Annotated[str | None, typer.Option(help="A sentence that the report's readers have to know.")] = None,
) -> None:
    """Decode prompts of several kinds with and without drafts. Exits with 1 if they ever gave different tokens."""
    from outrider import SamplingParams
    from outrider.bench.comparer import Comparer
    from outrider.bench.curves import measure_verify, memory_limit
    from outrider.bench.decode import measure_decode, show_decode
    from outrider.bench.pace import turn_lengths
    from outrider.bench.suite import choose_prompts
    from outrider.console import error_console, load_model, show_error

    sampling = SamplingParams(max_tokens=max_tokens, temperature=temperature, top_k=top_k, top_p=top_p)
    prompts_in = choose_prompts(suite, category or (), prompts)
    if report is not None:
        _prepare_report(report)
    llm = load_model(
        model,
        quantize=quantize,
        kv_cache_dtype=kv_cache_dtype,
        drafter=None if drafter == "off" else drafter,
        lookup=lookup,
        threads=threads,
    )
    form = form_for(llm, form)
    chosen = prompts_in(form)
    lengths = turn_lengths(chosen, llm, max_tokens)
    with open_peer(against, peer_python, llm, context=max(map(max, lengths)) + max_tokens) as peer:
        limit = memory_limit(llm)
        result = measure_decode(Comparer(llm, peer, sampling), chosen, lengths, rounds)
        result |= {"suite": Path(suite).name, "form": form.value} | limit.as_dict()
        curve = measure_verify(llm, peer, context=128, rounds=_VERIFY_ROUNDS) | limit.as_dict() if report else {}
    _print(result, show_decode, as_json)
    if report is not None:
        from outrider.bench.report.page import write_report

        page = write_report(report, result, curve, command=_repeating(sys.argv[1:]), note=note)
        error_console().print(f"report: {page}", markup=False)
    if not result["total"]["identical"]:
        differing = [name for name, of in result["categories"].items() if not of["identical"]]
        what = "drafting, or taking a prompt from the prefix cache, changed the tokens of prompts in"
        show_error(f"{what}: {', '.join(differing)}. This is a bug in outrider")
        raise typer.Exit(1)


@app.command()
def endpoint(
    url: Annotated[str, typer.Argument(help="A server's URL, like http://127.0.0.1:8000.", show_default=False)],
    url2: Annotated[
        str | None, typer.Argument(help="Another's, measured in turns with the first.", show_default=False)
    ] = None,
    model: Annotated[str, typer.Option(help="Its name there.", show_default="the first that the server lists")] = "",
    clients: Annotated[
        str, typer.Option(metavar="N,...", help="How many requests at a time, level by level.")
    ] = "1,2,4,8",
    requests: Annotated[
        int, typer.Option(min=1, help="Requests of each level, at least one per client and turn.")
    ] = 16,
    max_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of an answer.")] = 64,
    temperature: Annotated[
        float, typer.Option(min=0, help="0 takes the most likely token; more is more varied.")
    ] = 0.0,
    api_key: Annotated[
        str | None, typer.Option(envvar="OPENAI_API_KEY", help="Sent to URL and URL2 as bearer token.")
    ] = None,
    chat: Annotated[bool, typer.Option("--chat/--completions", help="The route to ask.")] = False,
    extra: Annotated[
        str | None, typer.Option(metavar="JSON", help="More fields of every request's body; null leaves one out.")
    ] = None,
    extra2: Annotated[
        str | None, typer.Option(metavar="JSON", help="Those of the second arm, which is URL again without URL2.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure any OpenAI-compatible server as its clients see it, alone or against another. Needs the extra "endpoint".

    Exits with 1 if no request of an arm is answered.
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
    from outrider.console import show_error

    arms = two_arms(
        (url, extra), (url2, extra2), chat=chat, model=model, max_tokens=max_tokens, temperature=temperature
    )
    result = asyncio.run(measure_endpoint(arms, client_counts(clients), requests, api_key))
    _print(result, show_endpoint, as_json)
    silent = unanswered(result)
    if silent:
        show_error(f"no request was answered by {' and '.join(silent)}: see the failures, and the server's log")
        raise typer.Exit(1)


def _repeating(arguments: list[str]) -> str:
    """The command as a reader would type it: without the note, which stands beside it, and with another's Python."""
    shown, left = ["outrider"], iter(arguments)
    for argument in left:
        flag = argument.partition("=")[0]
        if flag not in ("--note", "--peer-python"):
            shown.append(argument)
            continue
        if flag == argument:
            next(left, None)
        shown += ["--peer-python", "PYTHON"] if flag == "--peer-python" else []
    return shlex.join(shown)


def _prepare_report(folder: Path) -> None:
    """Finds out before anything is measured whether a report can be written.

    Raises:
        UsageError: matplotlib is missing, or the folder cannot be made.
    """
    try:
        import outrider.bench.report.page  # noqa: F401
    except ImportError as error:
        raise UsageError(f"a report needs {error.name}: pip install 'outrider[report]'") from error
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot write a report into {folder}: {error.strerror or error}") from error


def _print(result: dict[str, Any], show: Callable[[dict[str, Any]], None], as_json: bool) -> None:
    if as_json:
        print(json.dumps(result))
    else:
        show(result)
