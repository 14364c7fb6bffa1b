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
