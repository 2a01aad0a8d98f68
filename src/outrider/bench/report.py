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

from outrider import __version__
from outrider.bench.decode import caveat
from outrider.errors import UsageError


def make_folder(folder: Path) -> None:
    """Makes the folder of a report, before anything is measured. Raises UsageError if it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"cannot write a report into {folder} ({error.strerror or error}): name another folder"
        ) from error


def write_report(folder: Path, decode: Mapping[str, Any], verify: Mapping[str, Any], command: str) -> Path:
    """Writes `index.html` and `figures.json`; returns the page.

    Args:
        decode: the result of `measure_decode`.
        verify: that of `measure_verify`, for the same model.
        command: repeats the measurement.
    """
    facts = {
        "outrider": __version__,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "command": command,
        "decode": decode,
        "verify": verify,
    }
    page = folder / "index.html"
    page.write_text(render(facts), "utf-8")
    (folder / "figures.json").write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return page


def render(facts: Mapping[str, Any]) -> str:
    """The page of a report's facts."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((files("outrider.bench") / "page.html.jinja").read_text("utf-8"))
    return template.render(**facts, caveat=caveat(facts["decode"]))


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
