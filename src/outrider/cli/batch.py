"""`outrider batch`: the command. Nothing heavy is imported before it runs."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from outrider.console import (
    ContextOption,
    DrafterOption,
    JsonOption,
    KvCacheDtype,
    KvCacheOption,
    LoraOption,
    Quantize,
    QuantizeOption,
    ThreadsOption,
    adapters,
    print_result,
)
from outrider.errors import UsageError
from outrider.server.served_models import served_name

app = typer.Typer(add_completion=False, rich_markup_mode=None)


_LOADING = ("drafter", "context", "lora", "quantize", "kv_cache_dtype", "threads")


@app.command()
def batch(
    asked: typer.Context,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Requests in OpenAI's batch format, .jsonl.", show_default=False)
    ],
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="File for the answers; those it has already are not computed again.")
    ],
    model: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Model for all requests.", show_default="the one they name")
    ] = None,
    running: Annotated[int, typer.Option(min=1, max=64, help="Maximum batch size, in requests.")] = 64,
    drafter: DrafterOption = "auto",
    context: ContextOption = None,
    lora: LoraOption = None,
    quantize: QuantizeOption = Quantize.none,
    kv_cache_dtype: KvCacheOption = KvCacheDtype.int8,
    threads: ThreadsOption = None,
    url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="A server that answers in place of a model here, or a router of several.",
            show_default="none",
        ),
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(
            metavar="KEY", envvar="OPENAI_API_KEY", help="API key, sent to URL as bearer token.", show_default="none"
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Answer a FILE of requests, all sharing passes.

    The same command resumes. Needs the extra "batch".
    """
    given = [name for name in _LOADING if _is_given(asked, name)]
    if url and given:
        raise UsageError(f"--{given[0].replace('_', '-')} is the server's: leave it out, or --url")
    try:
        from outrider.server.batch.answers import Answers
        from outrider.server.batch.requests import model_of, read_requests
        from outrider.server.batch.run import Counts, answer_all, answer_all_at
    except ImportError as error:
        raise UsageError(f"outrider batch needs {error.name}: pip install 'outrider[batch]'") from error
    from outrider.console import error_console, load_model, progress_bar

    named, requests, console = adapters(lora), read_requests(file), error_console()
    source = "" if url else model or model_of(file, requests, named if isinstance(named, dict) else ())
    with Answers(out, requests) as answers:
        if before := len(requests) - len(answers.left):
            console.print(f"{before} of {len(requests)} answers are in {out} already", style="dim", markup=False)
        counts, seconds = Counts(), 0.0
        if answers.left:
            if url:
                answer = partial(answer_all_at, url, model=model, key=api_key)
            else:
                llm = load_model(
                    source,
                    quantize=quantize,
                    kv_cache_dtype=kv_cache_dtype,
                    drafter=drafter,
                    threads=threads,
                    context=context,
                    lora=named,
                )
                logging.getLogger("outrider.engine").setLevel(logging.WARNING)  # a line for each request
                answer = partial(answer_all, llm, served_name(source))
            began = time.perf_counter()
            with progress_bar() as bar:
                task = bar.add_task("starting", total=len(requests), completed=before)

                def report(counts: Counts) -> None:
                    done, rate = before + counts.answered, counts.completion_tokens / (time.perf_counter() - began)
                    bar.update(task, completed=done, description=f"{done} of {len(requests)}, {rate:.0f} tok/s")

                try:
                    counts = answer(answers, running=running, report=report)
                except KeyboardInterrupt:
                    console.print("stopped; the same command continues", markup=False)
                    raise typer.Exit(130) from None
            seconds = time.perf_counter() - began
    rate = counts.completion_tokens / seconds if seconds else 0.0
    print_result({**asdict(counts), "seconds": seconds, "tokens_per_second": rate}, _show, as_json)
    if counts.failed:
        console.print(f"{counts.failed} failed ({counts.problem}): the same command tries them again", markup=False)
        raise typer.Exit(1)


def _is_given(asked: typer.Context, name: str) -> bool:
    source = asked.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _show(result: dict[str, Any]) -> None:
    if not result["answered"] + result["failed"]:
        print("nothing is left to answer")
        return
    refused = f", {result['refused']} of them refused: their lines say why" if result["refused"] else ""
    print(f"{result['answered']} answers{refused}")
    tokens = f"{result['prompt_tokens']:,} + {result['completion_tokens']:,} tokens"
    print(f"{tokens} in {result['seconds']:.1f} s, {result['tokens_per_second']:.1f} tok/s")
