"""The report's drawings, as SVG text that goes straight into a page."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from matplotlib.figure import Figure

# Okabe & Ito 2008
BLUE, ORANGE, GREEN, VERMILLION, GREY = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#777777"
COLORS = [BLUE, ORANGE, GREEN, VERMILLION, "#cc79a7", "#56b4e9"]


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
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()[text.getvalue().index("<svg") :]


def training_curves(table: Path) -> str:
    """Losses and validation Dice over the epochs of a run's metrics.csv; empty if it is too short."""
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    if len(rows) < 2:
        return ""
    drawings = [new_figure(), new_figure()]  # two, so that a narrow page can stack them
    (losses,), (scores,) = (axes for _, axes in drawings)

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
        draw(scores, column, column.removeprefix("val/dice_"), COLORS[number % len(COLORS)])
    for axis, title in ((losses, "Loss"), (scores, "Validation Dice, at network size")):
        axis.set(title=title, xlabel="epoch")
        axis.xaxis.get_major_locator().set_params(integer=True)
        if axis.lines:
            axis.legend(frameon=False)
    scores.set_ylim(0, 1)
    return "".join(as_svg(figure) for figure, _ in drawings)


def reliability_diagram(calibration: dict[str, dict[str, Any]]) -> str:
    """How often pixels are foreground against how probable the model called it; the diagonal is perfect."""
    drawings = ""
    for name, found in calibration.items():
        figure, (axis,) = new_figure()
        bins, error = found["reliability"], found["ece"]
        axis.plot([0, 1], [0, 1], color=GREY, linestyle=":")
        axis.plot([b["confidence"] for b in bins], [b["frequency"] for b in bins], color=BLUE, marker="o")
        title = f"{name}, ECE {'undefined' if error is None else f'{error:.4f}'}"
        axis.set(title=title, xlabel="predicted probability", ylabel="share that is " + name)
        axis.set(xlim=(0, 1), ylim=(0, 1))
        drawings += as_svg(figure)
    return drawings


def comparison(result: dict[str, Any], deltas: dict[str, list[np.ndarray]]) -> str:
    """Differences between runs with their intervals, and those of single images in order.

    Args:
        result: as `compare.compare` returns it.
        deltas: per class, ascending differences in Dice, one array per run but the reference.
    """
    rows = [row for row in result["rows"] if row["verdict"] != "reference" and row["difference"] is not None]
    names = list(dict.fromkeys(row["run"] for row in result["images"]))
    colors = {name: COLORS[number % len(COLORS)] for number, name in enumerate(names)}
    figure, (forest, *curves) = new_figure(1, 1 + len(deltas), width=8, height=max(3.2, 0.3 * len(rows)))
    for y, row in enumerate(rows):
        forest.plot(row["difference"], y, "o", color=colors[row["run"]])
        if row["low"] is not None:
            forest.plot([row["low"], row["high"]], [y, y], color=colors[row["run"]])
    labels = [f"{row['class']}  {row['number']}" + f"  {row['run']}" * (len(names) > 1) for row in rows]
    forest.set_yticks(range(len(rows)), labels)
    forest.invert_yaxis()
    forest.axvline(0, color=GREY, linestyle=":")
    forest.set_title(f"Difference to {result['rows'][0]['run']}, with 95 % intervals")
    for axis, (name, runs) in zip(curves, deltas.items(), strict=True):
        for run, values in zip(names, runs, strict=True):
            # dots as well: five images must not look like a curve
            axis.plot(values, color=colors[run], marker=".", label=run)
        axis.axhline(0, color=GREY, linestyle=":")
        axis.set(title=f"Difference in Dice of each image with {name}", xlabel="images, in order")
        if names:
            axis.legend(frameon=False)
    return as_svg(figure)


def latencies(rows: list[dict[str, Any]]) -> str:
    """Milliseconds for an image in each form of a model; the rows are `bench.Row`s as dicts."""
    counts = sorted({row["threads"] for row in rows})
    forms = list(dict.fromkeys(row["form"] for row in rows))
    figure, (axis,) = new_figure(width=6.4, height=1.2 + 0.45 * len(forms))
    height = 0.8 / len(counts)
    for number, count in enumerate(counts):
        some = [row for row in rows if row["threads"] == count]
        places = [forms.index(row["form"]) + (number - (len(counts) - 1) / 2) * height for row in some]
        medians = [row["median"] for row in some]
        beyond = [max(0.0, row["p95"] - row["median"]) for row in some]
        label = f"{count} thread" + "s" * (count > 1)
        axis.barh(places, medians, height, label=label, color=COLORS[number % len(COLORS)])
        axis.errorbar(medians, places, xerr=[[0.0] * len(some), beyond], fmt="none", color=GREY)
    axis.set_yticks(range(len(forms)), forms)
    axis.invert_yaxis()
    axis.set(xlabel="milliseconds for an image: median, 95th percentile")
    axis.legend(frameon=False)
    return as_svg(figure)
