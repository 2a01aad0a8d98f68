"""`outrider serve`: the command. Nothing heavy is imported before it runs."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from outrider.cli.config_file import ConfigOption
from outrider.console import (
    ContextOption,
    DrafterOption,
    KvCacheDtype,
    KvCacheOption,
    LogLevel,
    LogLevelOption,
    LookupOption,
    LoraDrafterOption,
    LoraOption,
    ModelsArgument,
    PrefixCacheDirOption,
    PrefixCacheDiskOption,
    Quantize,
    QuantizeOption,
    ThreadsOption,
    adapter_drafters,
    adapters,
    error_console,
    threads_line,
)
from outrider.errors import UsageError
from outrider.server.served_models import check_first, served_models

if TYPE_CHECKING:
    from outrider.server.model_set import ModelSet
    from outrider.server.setup import Setup

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def serve(
    model: ModelsArgument = None,
    models: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder of models to serve, each loaded when a request names it.", show_default="none"
        ),
    ] = None,
    idle_unload: Annotated[
        float,
        typer.Option(
            min=0, metavar="SECONDS", help="Time without requests after which a model is unloaded; 0 is never."
        ),
    ] = 0.0,
    host: Annotated[str, typer.Option(help="Listening address; 0.0.0.0 for all interfaces.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Listening port; 0 for any free one.")] = 8000,
    drafter: DrafterOption = "auto",
    lookup: LookupOption = True,
    context: ContextOption = None,
    running: Annotated[int, typer.Option(min=1, max=64, help="Maximum batch size, in requests.")] = 8,
    waiting: Annotated[int, typer.Option(min=0, help="Maximum queue length; further requests get status 429.")] = 64,
    queue_timeout: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="Time limit of a request in the queue; 0 is none.")
    ] = 60.0,
    timeout: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="Time limit of a running request; 0 is none.")
    ] = 0.0,
    drain_timeout: Annotated[
        float,
        typer.Option(min=0, metavar="SECONDS", help="Time that accepted requests have after SIGTERM or Ctrl-C."),
    ] = 30.0,
    prefix_cache: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="GIB",
            help="Memory for the prefix cache; 0 is off.",
            show_default="a quarter of the available memory",
        ),
    ] = None,
    prefix_cache_dir: PrefixCacheDirOption = None,
    prefix_cache_disk: PrefixCacheDiskOption = None,
    shared_history: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="TOKENS",
            help="Earlier prompts and answers to draft from, some 600 bytes a token, shared between the clients of one "
            "API key and cache_salt: accepted drafts can confirm a guess of another's text; 0 is off.",
        ),
    ] = 0,
    api_key: Annotated[
        str | None,
        typer.Option(
            metavar="KEY", envvar="OUTRIDER_API_KEY", help="API key, sent as bearer token.", show_default="none"
        ),
    ] = None,
    api_key_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File of API keys, one a line. Clients of different keys share no text or cache.",
            show_default="none",
        ),
    ] = None,
    response_store: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder for the stored responses of /v1/responses, which then outlive the server.",
            show_default="memory only",
        ),
    ] = None,
    cors: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ORIGIN",
            help="Origin whose web pages may use the server, e.g. https://app.example, or * for all; may be repeated.",
            show_default="the server's own",
        ),
    ] = None,
    keep_alive: Annotated[
        float, typer.Option(min=1, metavar="SECONDS", help="Time limit of an idle connection.")
    ] = 75.0,
    served_model_name: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[=MODEL]",
            help="Model name in the API; may be repeated for aliases. NAME=MODEL: for one of several models.",
            show_default="MODEL, or its file's name",
        ),
    ] = None,
    lora: LoraOption = None,
    lora_drafter: LoraDrafterOption = None,
    ignore_media: Annotated[
        bool,
        typer.Option("--ignore-media", help='Read images and other media in messages as "[image]" and the like.'),
    ] = False,
    quantize: QuantizeOption = Quantize.none,
    kv_cache_dtype: KvCacheOption = KvCacheDtype.int8,
    threads: ThreadsOption = None,
    replicas: Annotated[
        str | None,
        typer.Option(
            metavar="N|auto",
            help="Replicas on Ray Serve, here or on the cluster of RAY_ADDRESS; auto: as many as requests need.",
            show_default="one server, without Ray",
        ),
    ] = None,
    log_level: LogLevelOption = LogLevel.info,
    config: ConfigOption = None,  # noqa: ARG001
) -> None:
    """Serve models over the OpenAI and Anthropic APIs. Needs the extra "serve", and "ray" for --replicas.

    The first MODEL is loaded at start, others when a request names them.

    --drafter PATH, --lora and --lora-drafter are for the first.
    """
    try:
        from outrider.server.allocator import return_large_blocks
        from outrider.server.app import create_app
        from outrider.server.keys import read_keys
        from outrider.server.lifecycle import run_until_stopped
        from outrider.server.limits import Limits
        from outrider.server.origins import is_loopback
        from outrider.server.responses.store import ResponseStore
        from outrider.server.setup import Setup
        from outrider.server.sockets import address, bind
    except ImportError as error:
        raise UsageError(f"serving needs {error.name}: pip install 'outrider[serve]'") from error
    from outrider.console import log_to_stderr

    log_to_stderr(log_level)
    if log_level is LogLevel.info:  # the access log has a line for each request
        logging.getLogger("outrider.engine").setLevel(logging.WARNING)
    if shared_history and not lookup:
        raise UsageError("--shared-history drafts by lookup, which --no-lookup switches off: leave one of them out")
    named = served_models(model or [], models, served_model_name or [])
    own = {"lora": adapters(lora), "lora_drafters": adapter_drafters(lora_drafter)}
    own |= {} if drafter in ("auto", "off") else {"drafter": drafter}
    check_first(named, own, given=bool(model))
    keys = read_keys(api_key, api_key_file)
    store = ResponseStore(response_store)
    listeners = bind(host, port)
    loopback = host if all(is_loopback(listener.getsockname()[0]) for listener in listeners) else None
    bound = listeners[0].getsockname()[1]
    url = f"http://{address(host, bound)}"
    options = {
        "drafter": "off" if drafter == "off" else "auto",
        "quantize": quantize,
        "kv_cache_dtype": kv_cache_dtype,
        "lookup": lookup,
        "lookup_history": shared_history,
        "prefix_cache_bytes": None if prefix_cache is None else int(prefix_cache * (1 << 30)),
        "prefix_cache_dir": prefix_cache_dir,
        "prefix_cache_disk": prefix_cache_disk,
        "threads": threads,
        "context": context,
    }
    setup = Setup(
        models=named,
        required=model or (),
        options=options,
        own=own if model else {},
        scheduling={"running": running, "waiting": waiting},
        keys=keys,
        limits=Limits(waiting=queue_timeout or None, running=timeout or None, idle=keep_alive, stopping=drain_timeout),
        ignore_media=ignore_media,
        idle_unload=idle_unload or None,
        cors=cors or (),
        loopback=loopback,
        response_store=response_store,
    )
    if replicas is not None:
        for listener in listeners:  # Ray's proxy binds the port itself, in a process of its own
            listener.close()
        _serve_replicas(setup, replicas, host, bound, url)
        return
    return_large_blocks()
    served = setup.model_set()
    announce(served, url, threads)
    run_until_stopped(
        create_app(served, loopback=loopback, cors=setup.cors, store=store), served, setup.limits, listeners
    )


def _serve_replicas(setup: Setup, replicas: str, host: str, port: int, url: str) -> None:
    if replicas != "auto" and not (replicas.isdecimal() and int(replicas)):
        raise UsageError(f"--replicas {replicas} is neither a number from 1 nor auto")
    try:
        from outrider.ray.cluster import run_replicas
    except ImportError as error:
        raise UsageError(f"--replicas needs {error.name}: pip install 'outrider[ray]'") from error
    name = next(iter(setup.models.values()))[0]
    line = f"{name} at {url}/v1, replicas: {replicas}. Ctrl-C stops them; requests may finish"
    run_replicas(
        setup, "auto" if replicas == "auto" else int(replicas), host, port, lambda: print(line, file=sys.stderr)
    )


def announce(models: ModelSet, url: str, threads: int | None) -> None:
    """Says what is served, and where."""
    console = error_console()

    def say(line: str, style: str | None = "dim") -> None:
        console.print(line, style=style, markup=False)

    first, *others = models.slots
    if first.service is not None:
        parts = first.service.parts
        say(f"{threads_line(parts.threads, threads)}; drafter: {parts.drafter.why}")
    if adapters := ", ".join(first.adapters):
        say(f"adapters: {adapters}")
    later = list(models.slots) if first.service is None else others
    say(f"{'models' if first.service is None else first.name} at {url}/v1, and a page to try it at {url}/", style=None)
    if later:
        say(f"loaded when a request names them: {', '.join(slot.name for slot in later)}")
    say("Ctrl-C stops it; running requests may finish")
