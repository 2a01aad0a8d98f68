"""`outrider run`: one prompt, or a conversation."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

from outrider.console import (
    ContextOption,
    DrafterOption,
    KvCacheDtype,
    KvCacheOption,
    LogLevel,
    LogLevelOption,
    LookupOption,
    ModelArgument,
    Quantize,
    QuantizeOption,
    ThreadsOption,
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
    model: ModelArgument,
    prompt: Annotated[
        str | None,
        typer.Argument(help="Prompt; - reads standard input. Without it: a conversation."),
    ] = None,
    drafter: DrafterOption = "auto",
    draft: Annotated[
        Any,
        typer.Option(parser=draft_setting, metavar="auto|off|K", help="Draft length: adaptive, 0, or K tokens."),
    ] = "auto",
    lookup: LookupOption = True,
    max_tokens: Annotated[int, typer.Option(help="Maximum number of tokens of an answer.")] = 128,
    temperature: Annotated[float, typer.Option(help="Sampling temperature; 0 is greedy.")] = 0.0,
    top_k: Annotated[int, typer.Option(help="Top-k sampling; 0: off.")] = 0,
    top_p: Annotated[float, typer.Option(help="Top-p (nucleus) sampling; 1: off.")] = 1.0,
    min_p: Annotated[float, typer.Option(help="Min-p sampling; 0: off.")] = 0.0,
    typical_p: Annotated[float, typer.Option(help="Locally typical sampling; 1: off.")] = 1.0,
    repetition_penalty: Annotated[
        float, typer.Option(help="Divides positive logits of tokens in prompt or answer; 1: off.")
    ] = 1.0,
    presence_penalty: Annotated[float, typer.Option(help="Subtracted once from logits of tokens in the answer.")] = 0.0,
    frequency_penalty: Annotated[
        float, typer.Option(help="Subtracted from logits once per occurrence in the answer.")
    ] = 0.0,
    min_tokens: Annotated[int, typer.Option(help="Minimum number of tokens of an answer.")] = 0,
    logprobs: Annotated[
        int | None, typer.Option(help="With --json: log-probabilities of the tokens and of the N likeliest ones.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Sampling seed.")] = 0,
    stop: Annotated[list[str] | None, typer.Option(help="Stop text; may be given several times.")] = None,
    context: ContextOption = None,
    quantize: QuantizeOption = Quantize.none,
    kv_cache_dtype: KvCacheOption = KvCacheDtype.float16,
    threads: ThreadsOption = None,
    show_drafts: Annotated[
        bool, typer.Option("--show-drafts", help="Colour accepted drafts and corrections (on a terminal).")
    ] = False,
    log_level: LogLevelOption = LogLevel.warning,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Generate from PROMPT, or chat in the terminal; statistics go to standard error."""
    # Nothing heavy is imported before a command runs, so help and usage errors take no time.
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
    # A chat model gets its own prompt format; a base model continues the text.
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
