"""`outrider plan`: does MTP pay on this or other hardware? Predicted from shapes; no model is loaded."""

from __future__ import annotations

from enum import StrEnum
from math import isfinite
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from outrider.console import DrafterOption, JsonOption, print_result
from outrider.errors import UsageError

if TYPE_CHECKING:
    from outrider.checkpoints import Format
    from outrider.roofline.hardware import Hardware
    from outrider.roofline.speedup import Plan
    from outrider.roofline.subject import Subject

ROWS = (1, 2, 4, 8, 16)
DRAFTED = (1, 2, 3, 4, 6, 8)
ACCEPTANCES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
REQUESTS = (1, 2, 4, 8, 16, 32, 64, 128)
HERE = "here"


class Weights(StrEnum):
    """The format of a published size's matrices."""

    q4_0 = "q4_0"
    q8_0 = "q8_0"
    bf16 = "bf16"


def plan(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="E2B, E4B, 12B, 26B-A4B or 31B, without a download; or what the other commands take.",
            show_default=False,
        ),
    ],
    hardware: Annotated[
        str,
        typer.Option(metavar="here|NAME", help="This machine, measured in two seconds, or an accelerator, e.g. h100."),
    ] = HERE,
    bandwidth: Annotated[
        float | None, typer.Option(min=0.1, metavar="GB/S", help="Memory bandwidth.", show_default="the hardware's")
    ] = None,
    arithmetic: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            metavar="G/S",
            help="Multiply-adds with quantized weights, of all cores together, in billions per second.",
            show_default="the hardware's",
        ),
    ] = None,
    weights: Annotated[
        Weights | None,
        typer.Option(help="Format of a published size's weights; a checkpoint has its own.", show_default="q4_0"),
    ] = None,
    drafter: DrafterOption = "auto",
    acceptance: Annotated[
        float,
        typer.Option(min=0.0, max=1.0, help="Acceptance rate of a drafted token whose predecessors were accepted."),
    ] = 0.7,
    context: Annotated[int, typer.Option(min=0, metavar="TOKENS", help="Context of each request.")] = 1024,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Compute threads of the measurement.", show_default="one per usable core")
    ] = None,
    cores: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of cores like those here to predict for; their memory's speed is --bandwidth.",
            show_default="those measured",
        ),
    ] = None,
    clients: Annotated[
        int | None,
        typer.Option(min=1, help="Clients that are to be served.", show_default="as many as can be"),
    ] = None,
    replicas: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Machines like this one that serve the clients.",
            show_default="as few as will do",
        ),
    ] = None,
    price_per_hour: Annotated[
        float | None,
        typer.Option(min=0.0, help="Price of a machine, in any currency.", show_default="no prices"),
    ] = None,
    prompt: Annotated[
        int, typer.Option(min=1, metavar="TOKENS", help="Tokens of a client's request that no cache has.")
    ] = 256,
    answer: Annotated[int, typer.Option(min=1, metavar="TOKENS", help="Tokens of a client's answer.")] = 256,
    pause: Annotated[
        float,
        typer.Option(
            min=0.01,
            metavar="SECONDS",
            help="Time from an answer to the client's next request.",
        ),
    ] = 20.0,
    running: Annotated[
        int, typer.Option(min=1, max=256, help="Maximum number of requests that a replica runs at once.")
    ] = 8,
    first_token: Annotated[
        float,
        typer.Option(
            min=0.001,
            metavar="SECONDS",
            help="Time in which 99 of 100 first tokens shall come.",
        ),
    ] = 5.0,
    next_token: Annotated[
        float,
        typer.Option(
            min=0.001,
            metavar="SECONDS",
            help="Time in which 99 of 100 further tokens shall follow.",
        ),
    ] = 0.2,
    as_json: JsonOption = False,
) -> None:
    """Predict whether MTP pays, and where it stops paying.

    It needs a model's shapes and two numbers of the hardware. With --clients or --replicas: how many clients so many
    machines serve, how fast, and at which price.
    """
    from outrider.cli.plan_clients import Wanted, describe_clients
    from outrider.cli.plan_table import show_plan
    from outrider.roofline.clients import Clients
    from outrider.roofline.speedup import Plan
    from outrider.roofline.subject import subject_of

    figures = {"bandwidth": bandwidth, "arithmetic": arithmetic, "acceptance": acceptance, "pause": pause}
    figures |= {"price-per-hour": price_per_hour, "first-token": first_token, "next-token": next_token}
    for option, figure in figures.items():
        if figure is not None and not isfinite(figure):
            raise UsageError(f"--{option} must be a finite number, not {figure}")
    if price_per_hour is not None and not (clients or replicas):
        raise UsageError("--price-per-hour is for many clients: give --clients or --replicas")
    subject = subject_of(model, cast("Format | None", weights and weights.name.upper()), drafter)
    if context >= subject.context_length:
        raise UsageError(f"--context {context} is more than {subject.name} holds: at most {subject.context_length - 1}")
    on = _hardware(subject, hardware, bandwidth, arithmetic, threads, cores)
    planned = Plan(subject.target, subject.drafter, on, context)
    result = describe(subject, planned, acceptance)
    if clients or replicas:
        each = Clients(prompt, answer, pause)
        wanted = Wanted(each, clients, replicas, running, price_per_hour, first_token, next_token)
        result["clients"] = describe_clients(planned, acceptance, wanted)
    print_result(result, show_plan, as_json)


def _hardware(
    subject: Subject,
    name: str,
    bandwidth: float | None,
    arithmetic: float | None,
    threads: int | None,
    cores: int | None,
) -> Hardware:
    from outrider import cores as machine
    from outrider.roofline.hardware import Hardware, accelerator
    from outrider.roofline.measured import measure_hardware

    described = bandwidth is not None and arithmetic is not None
    if threads is not None and (name != HERE or described):
        raise UsageError("--threads is for what is measured here")
    if cores is not None and (name != HERE or arithmetic is not None):
        raise UsageError("--cores scales the arithmetic that is measured here: leave out --hardware and --arithmetic")
    if name != HERE:
        return accelerator(name).replaced(bandwidth, arithmetic)
    if bandwidth is not None and arithmetic is not None:
        return Hardware("a processor of these figures", bandwidth * 1e9, arithmetic * 1e9)
    measured = threads or machine.cores().threads
    if cores is not None and cores < measured:
        raise UsageError(f"--cores {cores} is less than the {measured} that are measured: use --threads {cores}")
    found = measure_hardware(subject.target.main_format, measured)
    if cores is not None and cores > measured:
        found = found.reckoned(cores, measured)
    return found.replaced(bandwidth, arithmetic)


def describe(subject: Subject, plan: Plan, acceptance: float) -> dict[str, Any]:
    """The prediction as plain data: seconds, bytes, tokens per second, ratios."""
    from outrider.roofline.cost import bound_by_arithmetic
    from outrider.roofline.speedup import WORTHWHILE

    on, seconds = plan.hardware, [plan.verify_seconds(rows) for rows in ROWS]
    hardware = ("name", "bytes_per_second", "multiply_adds_per_second", "float_share", "byte_share")
    by_requests = [_at_load(plan, acceptance, requests) for requests in REQUESTS]
    return {
        "model": subject.name,
        "drafted_by": subject.drafted_by,
        "has_drafter": subject.drafter is not None,
        "context": plan.context,
        "acceptance": acceptance,
        "hardware": {name: getattr(on, name) for name in hardware},
        "bytes_per_token": plan.target.bytes_per_token,
        "plain_tokens_per_second": 1 / plan.plain_seconds(),
        "step_seconds": plan.step_seconds(),
        "rows": list(ROWS),
        "milliseconds": [1000 * of for of in seconds],
        "ratio": [of / seconds[0] for of in seconds],
        "arithmetic_bound_from_rows": bound_by_arithmetic(plan.target, on),
        "drafted": list(DRAFTED),
        "by_acceptance": [_at_acceptance(plan, rate) for rate in ACCEPTANCES],
        "by_requests": by_requests,
        "least_acceptance": plan.least_acceptance(),
        "worthwhile_requests": [of["requests"] for of in by_requests if of["speedup"] >= WORTHWHILE],
    }


def _at_acceptance(plan: Plan, acceptance: float) -> dict[str, Any]:
    best = plan.best(acceptance)
    return {
        "acceptance": acceptance,
        "speedup": [plan.speedup(acceptance, drafted) for drafted in DRAFTED],
        "best_drafted": best.drafted,
        "best_speedup": best.speedup,
    }


def _at_load(plan: Plan, acceptance: float, requests: int) -> dict[str, Any]:
    best, plain = plan.best(acceptance, requests), requests / plan.plain_seconds(requests)
    speeds = {"plain_tokens_per_second": plain, "mtp_tokens_per_second": plain * best.speedup}
    return {"requests": requests, "drafted": best.drafted, "speedup": best.speedup} | speeds
