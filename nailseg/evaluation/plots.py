"""The report's drawings, as SVG text for a page."""

from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nailseg.imaging.figures import BLUE, COLORS, GREY, new_figure, to_svg
from nailseg.metrics.image_counts import LEVEL_TEXT


def plot_training_curves(path: Path) -> str:
    """Losses and validation Dice over the epochs of a run's metrics.csv; empty below two epochs."""
    table = pd.read_csv(path)
    if len(table) < 2:
        return ""
    scores = [column for column in table if column.startswith("val/dice_")]
    panels = {
        "Loss": {"train/loss": "training", "val/loss": "validation"},
        "Validation Dice, at network size": {column: column.removeprefix("val/dice_") for column in scores},
    }
    drawings = ""  # one for each panel, so that a narrow page can stack them
    for title, lines in panels.items():
        figure, (axis,) = new_figure()
        for (column, label), color in zip(lines.items(), cycle(COLORS), strict=False):
            values = table.set_index(table["epoch"] + 1).get(column, pd.Series()).dropna()
            if len(values):
                axis.plot(values, label=label, color=color, marker="." if len(values) < 40 else None)
        axis.set(title=title, xlabel="epoch")
        axis.xaxis.get_major_locator().set_params(integer=True)
        if title != "Loss":
            axis.set_ylim(0, 1)
        if axis.lines:
            axis.legend(frameon=False)
        drawings += to_svg(figure)
    return drawings


def plot_reliability(calibration: dict[str, dict[str, Any]]) -> str:
    """A reliability diagram of each class; on the diagonal the probabilities are calibrated."""
    drawings = ""
    for name, found in calibration.items():
        figure, (axis,) = new_figure()
        bins, error = found["reliability"], found["ece"]
        axis.plot([0, 1], [0, 1], color=GREY, linestyle=":")
        axis.plot([b["confidence"] for b in bins], [b["frequency"] for b in bins], color=BLUE, marker="o")
        axis.set(title=f"{name}, ECE {'undefined' if error is None else f'{error:.4f}'}", xlim=(0, 1))
        axis.set(xlabel="predicted probability", ylabel=f"share that is {name}", ylim=(0, 1))
        drawings += to_svg(figure)
    return drawings


def plot_comparison(result: dict[str, Any], differences: dict[str, list[np.ndarray]]) -> str:
    """Differences between runs with their intervals, and those of single images, both from `compare`."""
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
    forest.set_title(f"Difference to {result['rows'][0]['run']}, with {LEVEL_TEXT} intervals")
    for axis, (name, runs) in zip(curves, differences.items(), strict=True):
        for run, values in zip(names, runs, strict=True):  # markers: five images are not a curve
            axis.plot(values, color=colors[run], marker=".", label=run)
        axis.axhline(0, color=GREY, linestyle=":")
        axis.set(title=f"Difference in Dice of each image with {name}", xlabel="images, in order")
        if names:
            axis.legend(frameon=False)
    return to_svg(figure)
