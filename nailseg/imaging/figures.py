"""Helpers for matplotlib figures, which are returned as SVG text."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe & Ito 2008: colour-blind readers can distinguish them
BLUE, ORANGE, GREEN, VERMILLION, GREY = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#777777"
PURPLE, SKY_BLUE, YELLOW = "#cc79a7", "#56b4e9", "#f0e442"
COLORS = [BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY_BLUE]


def new_figure(columns: int = 1, rows: int = 1, width: float = 4.6, height: float = 3.2) -> Any:
    """Creates a figure with a grid of axes of this width and height in inches.

    Returns:
        The figure and a one-dimensional array of its axes, row by row.
    """
    from matplotlib.figure import Figure  # takes a second: imported only where something is drawn

    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
    return figure, axes


def to_svg(figure: Figure) -> str:
    """Renders a figure as an <svg> element; equal figures give equal text.

    >>> figure, (axis,) = new_figure()
    >>> to_svg(figure).startswith("<svg")
    True
    """
    import matplotlib

    text = io.StringIO()
    style = {"svg.hashsalt": "nailseg", "svg.fonttype": "none", "font.family": "sans-serif"}
    with matplotlib.rc_context(style):
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()[text.getvalue().index("<svg") :]


def plot_latencies(rows: list[dict[str, Any]]) -> str:
    """Draws the latency of each form of a model as SVG; for fields see `nailseg.export.benchmark.Row`."""
    counts = sorted({row["threads"] for row in rows})
    forms = list(dict.fromkeys(row["form"] for row in rows))
    figure, (axis,) = new_figure(width=6.4, height=1.2 + 0.45 * len(forms))
    bar = 0.8 / len(counts)
    for number, count in enumerate(counts):
        some = [row for row in rows if row["threads"] == count]
        places = [forms.index(row["form"]) + (number - (len(counts) - 1) / 2) * bar for row in some]
        medians = [row["median"] for row in some]
        beyond = [[0.0] * len(some), [max(0.0, row["p95"] - row["median"]) for row in some]]
        label = f"{count} thread{'s' * (count > 1)}"
        axis.barh(places, medians, bar, label=label, color=COLORS[number % len(COLORS)])
        axis.errorbar(medians, places, xerr=beyond, fmt="none", color=GREY)
    axis.set_yticks(range(len(forms)), forms)
    axis.invert_yaxis()
    axis.set(xlabel="milliseconds for an image: median, 95th percentile")
    axis.legend(frameon=False)
    return to_svg(figure)
