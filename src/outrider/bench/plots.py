"""The report's plots, as SVG that takes its colours from the page, so that they suit a dark page as well.

matplotlib draws; each colour in its output is then replaced by a variable of the page's style sheet. Text stays text.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from typing import Any

import matplotlib

matplotlib.use("Agg")  # there may be no display
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

_SERIES = ("#010203", "#010204", "#010205", "#010206")
"""Stand for the page's colours 1 to 4. Nothing else has such a colour."""
_INK, _GRID = "#010207", "#010208"
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "outrider",  # the same figures give the same file
    "font.family": "sans-serif",
    "font.size": 11,
    "text.parse_math": False,  # a category may be called $x
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _GRID,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
}


def plot_speedup(categories: Mapping[str, Mapping[str, Any]]) -> str:
    """A bar for each category's speed-up; the line is its 95 % interval."""
    values = [of["speedup"] for of in categories.values()]
    low, high = zip(*(of["interval"] for of in categories.values()), strict=True)
    spread = [
        [max(value - end, 0) for value, end in zip(values, low, strict=True)],
        [max(end - value, 0) for value, end in zip(values, high, strict=True)],
    ]
    return _bars(list(categories), values, "times as fast as without drafting", _SERIES[0], spread)


def plot_tokens_per_pass(categories: Mapping[str, Mapping[str, Any]]) -> str:
    """A bar for each category's tokens per pass."""
    values = [of["tokens_per_pass"] for of in categories.values()]
    return _bars(list(categories), values, "tokens per target pass", _SERIES[1])


def plot_verify_cost(verify: Mapping[str, Any]) -> str:
    """Milliseconds of a pass over its rows; the dashed line is reading the weights once."""
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
        rows, predicted = verify["rows"], verify["predicted_milliseconds"]
        axes.plot(rows, verify["milliseconds"], "o-", color=_SERIES[0], label="outrider", linewidth=2)
        if peer := verify.get("peer"):
            axes.plot(rows, peer["milliseconds"], "s-", color=_SERIES[2], label=peer["name"], linewidth=2)
        axes.plot(rows, predicted, ":", color=_SERIES[0], label="predicted by outrider plan", linewidth=2)
        limit = 1000 / verify["limit_tokens_per_second"]
        axes.axhline(limit, color=_SERIES[3], linestyle="--", label="reading the weights once")
        axes.set(xlabel="rows of a pass (tokens verified together)", ylabel="milliseconds", ylim=(0, None))
        axes.set_xticks(rows)
        axes.legend()
        return _svg(figure)


def _bars(
    names: list[str], values: list[float], label: str, colour: str, spread: list[list[float]] | None = None
) -> str:
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(figsize=(6.4, 0.8 + 0.36 * len(names)), layout="constrained")
        places = range(len(names))
        axes.barh(places, values, color=colour, height=0.62)
        if spread:
            axes.errorbar(values, places, xerr=spread, fmt="none", ecolor=_INK, elinewidth=1.2, capsize=3)
        axes.axvline(1.0, color=_INK, linewidth=1)
        axes.set_yticks(places, names)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set(xlabel=label, xlim=(0, None))
        return _svg(figure)


def _svg(figure: Figure) -> str:
    """The drawing alone, without prologue, date and fixed size, in the page's colours."""
    with io.StringIO() as out:
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        text = out.getvalue()
    plt.close(figure)
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    for name in ("height", "width"):
        text = re.sub(rf'(<svg[^>]*?) {name}="[^"]*"', r"\1", text, count=1)
    for number, colour in enumerate(_SERIES, 1):
        text = text.replace(colour, f"var(--series-{number})")
    return text.replace(_INK, "currentColor").replace(_GRID, "var(--grid)")
