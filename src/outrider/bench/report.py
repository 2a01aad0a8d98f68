"""`outrider bench decode --report`: the figures on one page without scripts, fonts or requests."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from outrider import __version__
from outrider.bench.plots import plot_speedup, plot_tokens_per_pass, plot_verify_cost


def write_report(
    folder: Path, decode: Mapping[str, Any], verify: Mapping[str, Any], *, command: str, note: str | None = None
) -> Path:
    """Writes `index.html` and `figures.json`; returns the page.

    Args:
        decode: the result of `measure_decode`.
        verify: that of `measure_verify`, for the same model.
        command: repeats the measurement.
        note: a sentence for the readers.
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
        "verify_cost": plot_verify_cost(verify),
    }
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((files("outrider.bench") / "page.html.jinja").read_text("utf-8"))
    # Markup: matplotlib has escaped the texts of its plots.
    safe = {name: Markup(plot) for name, plot in plots.items()}
    return template.render(**facts, plots=safe, headline=_headline(decode["total"]))


def _headline(total: Mapping[str, Any]) -> str:
    low, high = total["interval"]
    same = "the same tokens" if total["identical"] else "but NOT the same tokens, which is a bug"
    speedup = f"{total['speedup']:.2f} times as fast with drafting as without"
    return f"{speedup} (95 % interval {low:.2f} to {high:.2f}); {same}."


def machine() -> dict[str, str | int]:
    """Processor, its cores, and the system."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return {
        "processor": next(names, "") or platform.processor() or platform.machine(),
        "cores": os.cpu_count() or 1,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }
