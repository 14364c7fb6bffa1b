"""The report's drawings, as SVG text for a page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from nailseg.imaging.figures import BLUE, COLORS, GREY, ORANGE, new_figure, to_svg

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np


def plot_training_curves(path: Path) -> str:
    """Losses and validation Dice over the epochs of a run's metrics.csv; empty below two epochs."""
    table = pd.read_csv(path)
    if len(table) < 2:
        return ""
    figures = [new_figure(), new_figure()]  # two, so that a narrow page can stack them
    (losses,), (scores,) = (axes for _, axes in figures)

    def draw(axis: Any, column: str, label: str, color: str) -> None:
        values = table[column].dropna() if column in table else []
        if len(values):
            marker = "." if len(values) < 40 else None
            axis.plot(table["epoch"][values.index] + 1, values, label=label, color=color, marker=marker)

    draw(losses, "train/loss", "training", BLUE)
    draw(losses, "val/loss", "validation", ORANGE)
    columns = [column for column in table if column.startswith("val/dice_")]
    for number, column in enumerate(columns):
        draw(scores, column, column.removeprefix("val/dice_"), COLORS[number % len(COLORS)])
    for axis, title in ((losses, "Loss"), (scores, "Validation Dice, at network size")):
        axis.set(title=title, xlabel="epoch")
        axis.xaxis.get_major_locator().set_params(integer=True)
        if axis.lines:
            axis.legend(frameon=False)
    scores.set_ylim(0, 1)
    return "".join(to_svg(figure) for figure, _ in figures)


def plot_reliability(calibration: dict[str, dict[str, Any]]) -> str:
    """A reliability diagram of each class; on the diagonal the probabilities are calibrated."""
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


def plot_comparison(result: dict[str, Any], differences: dict[str, list[np.ndarray]]) -> str:
    """Differences between runs with their intervals, and the sorted differences of single images.

    Args:
        result: as `compare.compare` returns it.
        differences: per class, ascending differences in Dice, one array per run but the reference.
    """
    rows = [row for row in result["rows"] if row["verdict"] != "reference" and row["difference"] is not None]
    names = list(dict.fromkeys(row["run"] for row in result["images"]))
    colors = {name: COLORS[number % len(COLORS)] for number, name in enumerate(names)}
    figure, (forest, *curves) = new_figure(1, 1 + len(differences), width=8, height=max(3.2, 0.3 * len(rows)))
    for y, row in enumerate(rows):
        forest.plot(row["difference"], y, "o", color=colors[row["run"]])
        if row["low"] is not None:
            forest.plot([row["low"], row["high"]], [y, y], color=colors[row["run"]])
    labels = [f"{row['class']}  {row['number']}" + f"  {row['run']}" * (len(names) > 1) for row in rows]
    forest.set_yticks(range(len(rows)), labels)
    forest.invert_yaxis()
    forest.axvline(0, color=GREY, linestyle=":")
    forest.set_title(f"Difference to {result['rows'][0]['run']}, with 95 % intervals")
    for axis, (name, runs) in zip(curves, differences.items(), strict=True):
        for run, values in zip(names, runs, strict=True):
            # markers, because five images are not a curve
            axis.plot(values, color=colors[run], marker=".", label=run)
        axis.axhline(0, color=GREY, linestyle=":")
        axis.set(title=f"Difference in Dice of each image with {name}", xlabel="images, in order")
        if names:
            axis.legend(frameon=False)
    return to_svg(figure)
