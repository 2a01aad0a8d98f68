"""Puts a benchmark's figures on one page that needs nothing else: no script, no font, no request."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from outrider import __version__
from outrider.bench.report.machine import machine
from outrider.bench.report.plots import (
    plot_acceptance_by_depth,
    plot_speedup,
    plot_tokens_per_pass,
    plot_verify_cost,
)
from outrider.bench.usual_pace import changes_of_pace


def write_report(
    folder: Path, decode: Mapping[str, Any], verify: Mapping[str, Any], *, command: str, note: str | None = None
) -> Path:
    """Writes `index.html` and `figures.json`; returns the page.

    Args:
        decode: what `measure_decode` found.
        verify: what `measure_verify` found for the same model, with the memory limit's fields.
        command: repeats the measurement.
        note: a sentence that a reader has to know.
    """
    facts = {
        "outrider": __version__,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "command": command,
        "note": note,
        "decode": decode,
        "verify": verify,
    }
    page = folder / "index.html"
    page.write_text(render(facts), "utf-8")
    (folder / "figures.json").write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return page


def render(facts: Mapping[str, Any]) -> str:
    """The page of a report's facts."""
    decode, verify = facts["decode"], facts["verify"]
    plots = {
        "speedup": plot_speedup(decode["categories"]),
        "tokens_per_pass": plot_tokens_per_pass(decode["categories"]),
        "verify_cost": plot_verify_cost(verify, 1 / verify["limit_tokens_per_second"]),
    }
    if any(decode["total"]["acceptance_by_depth"]):
        plots["acceptance"] = plot_acceptance_by_depth(decode["categories"], decode["total"])
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((files("outrider.bench.report") / "page.html.jinja").read_text("utf-8"))
    # Markup: what matplotlib wrote, whose texts it has escaped itself.
    return template.render(
        **facts,
        plots={name: Markup(plot) for name, plot in plots.items()},
        headline=_headline(decode),
        changes_of_pace=changes_of_pace(decode),
    )


def _headline(decode: Mapping[str, Any]) -> str:
    total, categories = decode["total"], decode["categories"]
    best, worst = (choose(categories, key=lambda name: categories[name]["speedup"]) for choose in (max, min))
    speed = f"{total['speedup']:.1f} times as fast with drafts as without"
    if len(categories) > 1:
        speed += f": {categories[worst]['speedup']:.1f} times for {worst}, {categories[best]['speedup']:.1f} for {best}"
    same = "the same tokens" if total["identical"] else "but NOT the same tokens, which is a bug"
    return f"{speed}; {same}."
