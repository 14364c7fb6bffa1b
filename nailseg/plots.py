"""The report's drawings, as SVG text that goes straight into a page."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure

# Okabe & Ito 2008
BLUE, ORANGE, GREEN, VERMILLION, GREY = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#777777"


def new_figure(columns: int = 1, rows: int = 1, width: float = 4.6, height: float = 3.2) -> Any:
    """A figure and its axes, without frames above and at the right; sizes in inches for each of the axes."""
    from matplotlib.figure import Figure  # loads in a second: only who draws waits for it

    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
    return figure, axes


def as_svg(figure: Figure) -> str:
    """The figure as an <svg> element; the same figure gives the same text."""
    import matplotlib

    text = io.StringIO()
    with matplotlib.rc_context(
        {"svg.hashsalt": "nailseg", "svg.fonttype": "none", "font.family": "sans-serif"}
    ):
        figure.savefig(text, format="svg", metadata={"Date": None}, transparent=True)
    return text.getvalue()[text.getvalue().index("<svg") :]


def training_curves(table: Path) -> str:
    """Losses and validation Dice over the epochs of a run's metrics.csv; empty if it is too short."""
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    if len(rows) < 2:
        return ""
    figure, (losses, scores) = new_figure(2)
    colors = [BLUE, ORANGE, GREEN, VERMILLION]

    def draw(axis: Any, column: str, label: str, color: str) -> None:
        points = [(int(row["epoch"]) + 1, float(row[column])) for row in rows if row.get(column)]
        if points:
            axis.plot(
                *zip(*points, strict=True), label=label, color=color, marker="." if len(points) < 40 else None
            )

    draw(losses, "train/loss", "training", BLUE)
    draw(losses, "val/loss", "validation", ORANGE)
    names = [column for column in rows[0] | rows[-1] if column.startswith("val/dice_")]
    for number, column in enumerate(names):
        draw(scores, column, column.removeprefix("val/dice_"), colors[number % len(colors)])
    for axis, title in ((losses, "Loss"), (scores, "Validation Dice, at network size")):
        axis.set(title=title, xlabel="epoch")
        if axis.lines:
            axis.legend(frameon=False)
    scores.set_ylim(0, 1)
    return as_svg(figure)


def reliability_diagram(calibration: dict[str, dict[str, Any]]) -> str:
    """How often pixels are foreground against how probable the model called it; the diagonal is perfect."""
    figure, axes = new_figure(len(calibration))
    for axis, (name, found) in zip(axes, calibration.items(), strict=True):
        bins = found["reliability"]
        axis.plot([0, 1], [0, 1], color=GREY, linestyle=":")
        axis.plot(
            [each["confidence"] for each in bins],
            [each["frequency"] for each in bins],
            color=BLUE,
            marker="o",
        )
        axis.set(
            title=f"{name}, ECE {found['ece']:.4f}",
            xlabel="predicted probability",
            ylabel="share that is " + name,
        )
        axis.set(xlim=(0, 1), ylim=(0, 1))
    return as_svg(figure)
