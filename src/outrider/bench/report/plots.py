"""The report's plots, as SVG that takes its colours from the page, so that they suit a dark page as well.

matplotlib draws; what it writes for a series' colour is then replaced by a variable of the page's style sheet. Texts
stay texts: they can be found, copied and read aloud.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib

matplotlib.use("Agg")  # there may be no display
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
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
    """A bar for each category's speed-up; the line is the spread of its prompts."""
    names = list(categories)
    values = [categories[name]["speedup"] for name in names]
    ends = [categories[name]["speedup_range"] for name in names]
    spread = [
        [max(value - low, 0) for value, (low, _) in zip(values, ends, strict=True)],
        [max(high - value, 0) for value, (_, high) in zip(values, ends, strict=True)],
    ]
    return _bars(names, values, "times as fast as without drafts", series=0, spread=spread, one=True)


def plot_tokens_per_pass(categories: Mapping[str, Mapping[str, Any]]) -> str:
    """A bar for each category's tokens per target pass."""
    names = list(categories)
    values = [categories[name]["tokens_per_pass"] for name in names]
    return _bars(names, values, "tokens per target pass", series=1, one=True)


def plot_verify_cost(verify: Mapping[str, Any], limit_seconds: float) -> str:
    """Milliseconds of a pass over its rows; the dashed line is what reading the weights once takes."""
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
        axes.plot(verify["rows"], verify["milliseconds"], "o-", color=_SERIES[0], label="outrider", linewidth=2)
        peer = verify.get("peer")
        if peer:
            axes.plot(verify["rows"], peer["milliseconds"], "s-", color=_SERIES[2], label=peer["name"], linewidth=2)
        predicted = verify["predicted_milliseconds"]
        axes.plot(verify["rows"], predicted, ":", color=_SERIES[0], label="predicted by outrider plan", linewidth=2)
        axes.axhline(1000 * limit_seconds, color=_SERIES[3], linestyle="--", label="reading the weights once")
        axes.set(xlabel="rows of a pass (tokens verified together)", ylabel="milliseconds", ylim=(0, None))
        axes.set_xticks(verify["rows"])
        axes.legend()
        return _svg(figure)


def plot_acceptance_by_depth(categories: Mapping[str, Mapping[str, Any]], total: Mapping[str, Any]) -> str:
    """The share of drafted tokens that were accepted, by their place in the draft; thin lines are categories."""
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
        for of in categories.values():
            _depths(axes, of["acceptance_by_depth"], color=_GRID, linewidth=1)
        _depths(axes, total["acceptance_by_depth"], color=_SERIES[1], linewidth=2.5, marker="o", label="all")
        axes.set(xlabel="place in the draft", ylabel="accepted", ylim=(0, 1.02))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes.legend(loc="lower left")
        return _svg(figure)


def _depths(axes: Axes, rates: Sequence[float], **style: Any) -> None:
    axes.plot(range(1, len(rates) + 1), rates, **style)


def _bars(
    names: Sequence[str],
    values: Sequence[float],
    label: str,
    *,
    series: int,
    spread: Sequence[Sequence[float]] | None = None,
    one: bool = False,
) -> str:
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(figsize=(6.4, 0.8 + 0.36 * len(names)), layout="constrained")
        places = range(len(names))
        axes.barh(places, values, color=_SERIES[series], height=0.62)
        if spread:
            axes.errorbar(values, places, xerr=spread, fmt="none", ecolor=_INK, elinewidth=1.2, capsize=3)
        if one:
            axes.axvline(1.0, color=_INK, linewidth=1)
        axes.set_yticks(places, names)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set(xlabel=label, xlim=(0, None))
        return _svg(figure)


def _svg(figure: Figure) -> str:
    """The drawing alone, without prologue, date and fixed size, its colours those of the page."""
    with io.StringIO() as out:
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        text = out.getvalue()
    plt.close(figure)
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(
        r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1), count=1
    )
    for number, colour in enumerate(_SERIES, 1):
        text = text.replace(colour, f"var(--series-{number})")
    return text.replace(_INK, "currentColor").replace(_GRID, "var(--grid)")
