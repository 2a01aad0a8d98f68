"""`outrider run`: one prompt, or a session."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from outrider.cli.prompt_text import prompt_text
from outrider.console import (
    ContextOption,
    DrafterOption,
    JsonOption,
    KvCacheDtype,
    KvCacheOption,
    LogLevel,
    LogLevelOption,
    LookupOption,
    LoraDrafterOption,
    LoraOption,
    ModelArgument,
    PrefixCacheDirOption,
    PrefixCacheDiskOption,
    Quantize,
    QuantizeOption,
    ThreadsOption,
    adapter_drafters,
    adapters,
)
from outrider.errors import UsageError

if TYPE_CHECKING:
    from outrider import LLM, SamplingParams
    from outrider.cli.messages import Message

_RECOMMENDED = "the checkpoint's, else {}"


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
        typer.Argument(
            metavar="PROMPT",
            help="Prompt; piped text is appended. Without either: a session in the terminal.",
            show_default=False,
        ),
    ] = None,
    system: Annotated[
        str | None, typer.Option(metavar="TEXT", help="System text of a chat model.", show_default="none")
    ] = None,
    drafter: DrafterOption = "auto",
    draft: Annotated[
        Any,
        typer.Option(parser=draft_setting, metavar="auto|off|K", help="Draft length: adaptive, 0, or K tokens."),
    ] = "auto",
    lookup: LookupOption = True,
    lora: LoraOption = None,
    lora_drafter: LoraDrafterOption = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            metavar="TOKENS",
            help="Maximum length of an answer.",
            show_default="the checkpoint's, else 128; in a chat, the context",
        ),
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="Sampling temperature; 0 is greedy.", show_default=_RECOMMENDED.format(0))
    ] = None,
    greedy: Annotated[
        bool, typer.Option("--greedy", help="The most likely token each time, as temperature 0.")
    ] = False,
    top_k: Annotated[
        int | None, typer.Option(help="Top-k sampling; 0 is off.", show_default=_RECOMMENDED.format(0))
    ] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Top-p (nucleus) sampling; 1 is off.", show_default=_RECOMMENDED.format(1))
    ] = None,
    min_p: Annotated[
        float | None, typer.Option(help="Min-p sampling; 0 is off.", show_default=_RECOMMENDED.format(0))
    ] = None,
    typical_p: Annotated[
        float | None, typer.Option(help="Locally typical sampling; 1 is off.", show_default=_RECOMMENDED.format(1))
    ] = None,
    repetition_penalty: Annotated[
        float | None,
        typer.Option(
            help="Penalty of tokens in prompt or answer, a factor of the logit; 1 is off.",
            show_default=_RECOMMENDED.format(1),
        ),
    ] = None,
    presence_penalty: Annotated[
        float | None,
        typer.Option(
            help="Penalty of tokens in the answer, subtracted from the logit once; 0 is off.",
            show_default=_RECOMMENDED.format(0),
        ),
    ] = None,
    frequency_penalty: Annotated[
        float | None,
        typer.Option(
            help="Penalty of tokens in the answer, subtracted per occurrence; 0 is off.",
            show_default=_RECOMMENDED.format(0),
        ),
    ] = None,
    min_tokens: Annotated[
        int | None,
        typer.Option(metavar="TOKENS", help="Minimum length of an answer.", show_default=_RECOMMENDED.format(0)),
    ] = None,
    logprobs: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="With --json: log-probabilities of the tokens and of the N likeliest ones.",
            show_default="none",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Sampling seed.")] = 0,
    stop: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="Stop text; may be repeated.", show_default=_RECOMMENDED.format("none")),
    ] = None,
    context: ContextOption = None,
    quantize: QuantizeOption = Quantize.none,
    kv_cache_dtype: KvCacheOption = KvCacheDtype.int8,
    threads: ThreadsOption = None,
    thinking: Annotated[bool, typer.Option("--thinking", help="Let a chat model reason first.")] = False,
    show_drafts: Annotated[
        bool, typer.Option("--show-drafts", help="Colour accepted drafts and corrections (on a terminal).")
    ] = False,
    session: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Keep the conversation under this name, and continue it next time: its text in the user's state "
            "folder, its keys and values in --prefix-cache-dir.",
            show_default="none",
        ),
    ] = None,
    prefix_cache_dir: PrefixCacheDirOption = None,
    prefix_cache_disk: PrefixCacheDiskOption = None,
    history: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File that keeps what you type in a session.", show_default="in memory"),
    ] = None,
    log_level: LogLevelOption = LogLevel.warning,
    as_json: JsonOption = False,
) -> None:
    """Generate from PROMPT, or chat in the terminal.

    Statistics go to standard error. Answers use the first adapter that --lora names; in a session, /set lora NAME
    changes it.
    """
    # Nothing heavy is imported before a command runs, so help and usage errors take no time.
    from outrider import SamplingParams
    from outrider.cli.answer import note
    from outrider.cli.kept import KeptConversation
    from outrider.console import load_model, log_to_stderr, threads_line
    from outrider.sampling.params import params_with
    from outrider.user_cache import user_cache

    log_to_stderr(log_level)
    if greedy and temperature not in (None, 0):
        raise UsageError(f"--greedy is temperature 0, and --temperature is {temperature:g}: leave one of them out")
    options: dict[str, Any] = {
        "max_tokens": max_tokens,
        "temperature": 0.0 if greedy else temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "typical_p": typical_p,
        "repetition_penalty": repetition_penalty,
        "presence_penalty": presence_penalty,
        "frequency_penalty": frequency_penalty,
        "min_tokens": min_tokens,
        "stop": tuple(stop) if stop else None,
    }
    named = adapters(lora)
    given = {name: value for name, value in options.items() if value is not None}
    given |= {"logprobs": logprobs, "seed": seed, "draft": draft}
    given["lora"] = next(iter(named), None) if isinstance(named, dict) else None
    SamplingParams(**given)  # checks them before anything is loaded
    text = prompt_text(prompt, session=not as_json)
    # Both check their files before anything is loaded.
    kept = None if session is None else KeptConversation(session)
    said = [] if kept is None else kept.read()
    if said and said[0]["role"] == "system":
        system = system or said[0]["content"]
        del said[0]
    if text is None:
        from outrider.cli.chat import keyboard

        read = keyboard(history)
    llm = load_model(
        model,
        quantize=quantize,
        kv_cache_dtype=kv_cache_dtype,
        drafter=drafter,
        lookup=lookup,
        threads=threads,
        context=context,
        prefix_cache_dir=prefix_cache_dir or (user_cache("pages") if kept else None),
        prefix_cache_disk=prefix_cache_disk,
        lora=named,
        lora_drafters=adapter_drafters(lora_drafter),
    )
    if not as_json and drafter == "auto":
        note(f"{threads_line(llm.parts.threads, threads)}; drafter: {llm.drafter.why}")
    chat = llm.parts.chat is not None
    if not chat and (system or thinking):
        option = "--system" if system else "--thinking"
        raise UsageError(f"{option} is for chat models, and {llm.path.name} is a base model: put it into the prompt")
    session_limit = {"max_tokens": llm.context} if chat and text is None else {}
    params = params_with({**session_limit, **llm.parts.sampling}, **given)
    if text is None:
        from outrider.cli.chat import converse
        from outrider.cli.session import Session

        if said:
            note(f"session {session}: {len(said)} messages so far; /clear forgets them")
        converse(Session(llm, params, system or "", thinking, show_drafts, said, kept=kept), read)
    else:
        messages: list[Message] = [{"role": "system", "content": system}] if system else []
        messages += [*said, {"role": "user", "content": text}]
        answer = _answer(llm, messages, params, thinking=thinking, show_drafts=show_drafts, as_json=as_json)
        if kept is not None:
            kept.write([*messages, {"role": "assistant", "content": answer}])


def _answer(
    llm: LLM,
    messages: list[Message],
    params: SamplingParams,
    *,
    thinking: bool,
    show_drafts: bool,
    as_json: bool,
) -> str:
    """Prints one answer: a chat model's turn, or a base model's continuation of the only message."""
    from outrider.cli.answer import limit_reached, note, print_figures, stream_answer
    from outrider.cli.request import one_text, request_of

    if as_json:
        chat = llm.parts.chat is not None
        outputs = llm.chat(messages, params, thinking=thinking) if chat else llm.generate(one_text(messages), params)
        print(json.dumps(outputs[0].as_dict()))
        return outputs[0].text
    answer = stream_answer(llm, request_of(llm, messages, params, thinking=thinking), show_drafts=show_drafts)
    if limit := limit_reached(answer, params, llm.context):
        note(limit)
    print_figures(answer)
    return answer.text
