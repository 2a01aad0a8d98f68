"""`outrider plan`: does MTP pay on this or other hardware? Predicted from shapes; no model is loaded."""

from __future__ import annotations

import json
from enum import StrEnum
from math import isfinite
from typing import TYPE_CHECKING, Annotated, Any

import typer

from outrider.console import DrafterOption
from outrider.errors import UsageError

if TYPE_CHECKING:
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
            help='E2B, E4B, 12B, 26B-A4B or 31B: nothing is downloaded. Or "demo", a .gguf file, a folder, a hub id, '
            "which is.",
            show_default=False,
        ),
    ],
    hardware: Annotated[
        str, typer.Option(metavar="here|NAME", help="Measured here in two seconds, or an accelerator such as h100.")
    ] = HERE,
    bandwidth: Annotated[
        float | None, typer.Option(min=0.1, help="Memory, GB/s: instead of the hardware's own.", show_default=False)
    ] = None,
    arithmetic: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            help="Another processor's: 8-bit multiply-adds, G per second and core. With --bandwidth and --cores.",
            show_default=False,
        ),
    ] = None,
    cores: Annotated[int | None, typer.Option(min=1, help="Another processor's.", show_default=False)] = None,
    weights: Annotated[
        Weights | None,
        typer.Option(help="The format of a published size's weights; a checkpoint has its own.", show_default="q4_0"),
    ] = None,
    drafter: DrafterOption = "auto",
    acceptance: Annotated[
        float,
        typer.Option(min=0.0, max=1.0, help="Acceptance rate of a drafted token if those before it were accepted."),
    ] = 0.7,
    context: Annotated[int, typer.Option(min=0, help="Positions that each request holds.")] = 1024,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of the measurement.", show_default="one a core")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Predict whether MTP pays, and where it stops paying, from a model's shapes and two numbers of the hardware."""
    from outrider.cli.plan_table import show_plan
    from outrider.roofline.speedup import Plan

    for option, figure in (("bandwidth", bandwidth), ("arithmetic", arithmetic), ("acceptance", acceptance)):
        if figure is not None and not isfinite(figure):
            raise UsageError(f"--{option} must be a finite number, not {figure}")
    subject = _subject(model, weights, drafter)
    if context >= subject.context_length:
        raise UsageError(f"--context {context} is more than {subject.name} holds: at most {subject.context_length - 1}")
    on = _hardware(subject, hardware, bandwidth, arithmetic, cores, threads)
    result = describe(subject, Plan(subject.target, subject.drafter, on, context), acceptance)
    if as_json:
        print(json.dumps(result))
    else:
        show_plan(result)


def _subject(model: str, weights: Weights | None, drafter: str) -> Subject:
    from outrider.checkpoints import Format
    from outrider.roofline.subject import checkpoint_subject, is_size, sized_subject

    if is_size(model):
        if drafter != "auto":
            raise UsageError(f"--drafter needs a checkpoint: {model} is planned with its published drafter")
        formats: dict[Weights, Format] = {Weights.q4_0: "Q4_0", Weights.q8_0: "Q8_0", Weights.bf16: "BF16"}
        return sized_subject(model, formats[weights or Weights.q4_0])
    if weights is not None:
        raise UsageError(f"--weights is for published sizes: {model} has formats of its own")
    return checkpoint_subject(model, drafter)


def _hardware(
    subject: Subject,
    name: str,
    bandwidth: float | None,
    arithmetic: float | None,
    cores: int | None,
    threads: int | None,
) -> Hardware:
    from outrider.roofline.hardware import accelerator, processor

    if threads is not None and (name != HERE or arithmetic is not None):
        raise UsageError("--threads is for what is measured here")
    if arithmetic is not None or cores is not None:
        if bandwidth is None or arithmetic is None or cores is None or name != HERE:
            raise UsageError(
                "another processor is described by --bandwidth, --arithmetic and --cores, all three, without --hardware"
            )
        return processor(bandwidth, arithmetic, cores)
    if name == HERE:
        from outrider.loading import usable_cores
        from outrider.roofline.measured import measure_hardware

        found = measure_hardware(subject.target.main_format, threads or usable_cores())
    else:
        found = accelerator(name)
    return found if bandwidth is None else found.with_bandwidth(bandwidth)


def describe(subject: Subject, plan: Plan, acceptance: float) -> dict[str, Any]:
    """The prediction as plain data: seconds, bytes, tokens per second, ratios."""
    from outrider.roofline.cost import bound_by_arithmetic
    from outrider.roofline.speedup import WORTHWHILE

    on = plan.hardware
    seconds = [plan.verify_seconds(rows) for rows in ROWS]
    by_requests = []
    for requests in REQUESTS:
        best, plain = plan.best(acceptance, requests), requests / plan.plain_seconds(requests)
        by_requests.append(
            {
                "requests": requests,
                "drafted": best.drafted,
                "speedup": best.speedup,
                "plain_tokens_per_second": plain,
                "mtp_tokens_per_second": plain * best.speedup,
            }
        )
    return {
        "model": subject.name,
        "drafted_by": subject.drafted_by,
        "has_drafter": subject.drafter is not None,
        "context": plan.context,
        "acceptance": acceptance,
        "hardware": {
            "name": on.name,
            "bytes_per_second": on.bytes_per_second,
            "multiply_adds_per_second": on.multiply_adds_per_second,
            "float_share": on.float_share,
        },
        "bytes_per_token": plan.target.bytes_per_token,
        "plain_tokens_per_second": 1 / plan.plain_seconds(),
        "step_seconds": plan.step_seconds(),
        "rows": list(ROWS),
        "milliseconds": [1000 * of for of in seconds],
        "ratio": [of / seconds[0] for of in seconds],
        "arithmetic_bound_from_rows": bound_by_arithmetic(plan.target, on),
        "drafted": list(DRAFTED),
        "by_acceptance": [
            {
                "acceptance": a,
                "speedup": [plan.speedup(a, drafted) for drafted in DRAFTED],
                "best_drafted": plan.best(a).drafted,
                "best_speedup": plan.best(a).speedup,
            }
            for a in ACCEPTANCES
        ],
        "by_requests": by_requests,
        "least_acceptance": plan.least_acceptance(),
        "worthwhile_requests": [of["requests"] for of in by_requests if of["speedup"] >= WORTHWHILE],
    }
