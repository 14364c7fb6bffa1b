"""The report's drawings, as SVG text that goes straight into a page."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any

from nailseg.imaging.figures import BLUE, COLORS, GREY, ORANGE, new_figure, to_svg

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np


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
    return "".join(to_svg(figure) for figure, _ in drawings)


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
        drawings += to_svg(figure)
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
    return to_svg(figure)
