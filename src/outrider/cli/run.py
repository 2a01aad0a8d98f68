"""`outrider run`: one prompt, or a conversation."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

from outrider.console import (
    DrafterOption,
    KvCacheDtype,
    KvCacheOption,
    LogLevel,
    LogLevelOption,
    Quantize,
    QuantizeOption,
)
from outrider.errors import UsageError


def draft_setting(value: str) -> str | int:
    """`--draft` as SamplingParams takes it."""
    if value in ("auto", "off"):
        return value
    if value.isdecimal():
        return int(value)
    raise typer.BadParameter(f"{value!r} is neither 'auto' nor 'off' nor a number of tokens, such as 4")


def run(
    model: Annotated[str, typer.Argument(help='"demo", a .gguf file, a folder, or a hub id.', show_default=False)],
    prompt: Annotated[
        str | None,
        typer.Argument(help="The text to go on from; - reads standard input. Without it: a conversation."),
    ] = None,
    drafter: DrafterOption = "auto",
    draft: Annotated[
        Any,
        typer.Option(
            parser=draft_setting,
            metavar="auto|off|K",
            help="Draft what pays, nothing, or K tokens a pass.",
        ),
    ] = "auto",
    lookup: Annotated[
        bool, typer.Option("--lookup/--no-lookup", help="Draft what prompt and answer already said.")
    ] = True,
    max_tokens: Annotated[int, typer.Option(help="Most tokens of an answer.")] = 128,
    temperature: Annotated[float, typer.Option(help="0 takes the most likely token; more is more varied.")] = 0.0,
    top_k: Annotated[int, typer.Option(help="Choose among the K most likely tokens; 0: all.")] = 0,
    top_p: Annotated[float, typer.Option(help="Choose among the most likely tokens that reach P together.")] = 1.0,
    min_p: Annotated[
        float, typer.Option(help="Choose among tokens at least this many times as likely as the best.")
    ] = 0.0,
    typical_p: Annotated[
        float, typer.Option(help="Choose among the tokens of the most typical surprise that reach P together.")
    ] = 1.0,
    repetition_penalty: Annotated[
        float, typer.Option(help="Above 1: what prompt or answer already said becomes less likely.")
    ] = 1.0,
    presence_penalty: Annotated[float, typer.Option(help="Taken from logits of what the answer already said.")] = 0.0,
    frequency_penalty: Annotated[
        float, typer.Option(help="Taken from logits once for every time that the answer said it.")
    ] = 0.0,
    min_tokens: Annotated[int, typer.Option(help="Fewest tokens of an answer.")] = 0,
    logprobs: Annotated[
        int | None,
        typer.Option(help="With --json: the log-probability of every token, and of the N likeliest at its place."),
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same text.")] = 0,
    stop: Annotated[
        list[str] | None, typer.Option(help="Text that ends an answer; give it several times for several texts.")
    ] = None,
    context: Annotated[int | None, typer.Option(help="Most tokens of prompt and answer together.")] = None,
    quantize: QuantizeOption = Quantize.none,
    kv_cache_dtype: KvCacheOption = KvCacheDtype.float16,
    threads: Annotated[int | None, typer.Option(help="Threads to compute with.", show_default="all cores")] = None,
    show_drafts: Annotated[
        bool,
        typer.Option(
            "--show-drafts", help="Colour what was drafted and accepted, and what was corrected (on a terminal)."
        ),
    ] = False,
    log_level: LogLevelOption = LogLevel.warning,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Go on from PROMPT, or from what you type; the figures go to standard error."""
    # Nothing heavy is imported before a command runs: help and usage errors answer at once.
    from outrider import SamplingParams
    from outrider.cli.answer import print_figures, stream_answer
    from outrider.console import error_console, load_model, log_to_stderr

    log_to_stderr(log_level)
    params = SamplingParams(
        max_tokens=max_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        typical_p=typical_p,
        repetition_penalty=repetition_penalty,
        presence_penalty=presence_penalty,
        frequency_penalty=frequency_penalty,
        min_tokens=min_tokens,
        logprobs=logprobs,
        seed=seed,
        stop=tuple(stop or ()),
        draft=draft,
    )
    text = prompt_text(prompt, conversation=not as_json)
    llm = load_model(
        model,
        quantize=quantize,
        kv_cache_dtype=kv_cache_dtype,
        drafter=drafter,
        lookup=lookup,
        threads=threads,
        context=context,
    )
    if not as_json and drafter == "auto":
        error_console().print(f"drafter: {llm.drafter.why}", style="dim", markup=False)
    if text is None:
        from outrider.cli.chat import converse

        converse(llm, params, show_drafts=show_drafts)
        return
    # A chat model is asked in its own form; a base model goes on from the text as it is.
    asked = text if llm.parts.chat is None else llm.parts.prompts.conversation([{"role": "user", "content": text}])
    if as_json:
        print(json.dumps(llm.generate([asked] if isinstance(asked, list) else asked, params)[0].as_dict()))
    else:
        print_figures(stream_answer(llm, asked, params, show_drafts=show_drafts))


def prompt_text(prompt: str | None, *, conversation: bool) -> str | None:
    """The prompt, read from standard input if that is where it is; None for a conversation.

    As in a shell's $(...), the newline that ends the input is not part of it.

    Raises:
        UsageError: there is no prompt and no terminal to hold a conversation in, or it is not text.
    """
    if prompt == "-" or (prompt is None and not sys.stdin.isatty()):
        try:
            return sys.stdin.buffer.read().decode().removesuffix("\n")
        except UnicodeDecodeError as error:
            raise UsageError(f"standard input is not UTF-8 text (byte {error.start}): convert it with iconv") from error
    if prompt is None and not (conversation and sys.stdout.isatty()):
        what = "--json" if not conversation else "output that is not a terminal"
        raise UsageError(f"{what} needs a PROMPT: give one, or pipe it in")
    if prompt is not None:
        try:
            prompt.encode()
        except UnicodeEncodeError as error:
            raise UsageError("PROMPT is not UTF-8 text: pass it on standard input, converted with iconv") from error
    return prompt
