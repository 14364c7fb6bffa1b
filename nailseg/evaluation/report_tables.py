"""The tables of report.html: what each number means, and why one may be missing."""

from __future__ import annotations

import html
from typing import Any

FEWEST = 5
"""Images; a slice of fewer is grey, a group of fewer is none."""

EXPLANATIONS = {
    "iou": "intersection over union, over all pixels of the set",
    "dice": "Dice (F1), over all pixels of the set",
    "precision": "share of the pixels found that are right",
    "recall": "share of the class's pixels that are found",
    "dice_per_image": "mean Dice of the images that contain the class",
    "boundary_iou": "IoU of bands along the outlines, 2 % of the diagonal wide (Cheng et al. 2021)",
    "surface_dice": "share of both outlines that lie within {tolerance:g} pixels of each other",
    "ap50": "average precision of connected components at IoU 0.5, as COCO computes it",
    "map50_95": "the same, mean over IoU 0.50 to 0.95",
    "instance_precision": "share of the components found that match a true one at IoU 0.5",
    "instance_recall": "share of the true components that are matched at IoU 0.5",
    "n_images_with": "images that contain the class",
    "n_false_alarms": "images without the class in which it was predicted",
    "miou": "mean IoU over all classes that occur, background included",
    "pixel_accuracy": "share of pixels with the right class",
    "n_images": "images",
}
HEADLINES = ("dice", "iou", "dice_per_image", "boundary_iou", "surface_dice", "ap50")
TITLES = {
    "dice": "Dice",
    "iou": "IoU",
    "dice_per_image": "Dice per image",
    "boundary_iou": "Boundary IoU",
    "surface_dice": "Surface Dice",
    "ap50": "AP50",
    "instance_recall": "Found at IoU 0.5",
}


def headlines(metrics: dict[str, Any], name: str) -> str:
    """The main numbers of a class, large."""
    tiles = "".join(
        f"<div><b>{number(metrics[f'{key}_{name}'], 3)}</b>{TITLES[key]}"
        f"<small>{between(metrics['intervals'][f'{key}_{name}'])}</small></div>"
        for key in HEADLINES
    )
    return f"<h2>{html.escape(name)}</h2><div class=tiles>{tiles}</div>\n"


def number_row(name: str, value: Any, metrics: dict[str, Any]) -> str:
    """One number of metrics.json with its meaning and interval; empty for what is no number."""
    if name in ("classes", "surface_tolerance") or isinstance(value, dict | list):
        return ""
    # the longest prefix: dice_per_image before dice
    prefix = next((k for k in sorted(EXPLANATIONS, key=len, reverse=True) if name.startswith(k)), None)
    meaning = EXPLANATIONS[prefix].format(tolerance=metrics["surface_tolerance"]) if prefix else ""
    shown, ends = number(value, missing=absence(name)), between(metrics["intervals"].get(name))
    meaning = f"<small class=meaning>{html.escape(meaning)}</small>"
    return f"<tr><td>{html.escape(name)}{meaning}<td class=n>{shown}<td class=n>{ends}\n"


def slice_tables(kind: str, parts: dict[str, dict[str, Any]], names: list[str]) -> str:
    """A kind of slice, one table for each foreground class.

    Args:
        kind: what divides the images.
        parts: numbers by slice, as in metrics.json.
        names: of the classes, the first is the background.
    """
    tables = ""
    for name in names[1:]:
        shown = [key for key in TITLES if f"{key}_{name}" in next(iter(parts.values()))]
        heads = "".join(f"<th class=n>{title}" for title in ["images", *(TITLES[key] for key in shown)])
        body = "".join(
            f"<tr{' class=few' * (numbers['n_images'] < FEWEST)}><td>{html.escape(part)}"
            f"<td class=n>{numbers['n_images']}"
            + "".join(f"<td class=n>{number(numbers[f'{key}_{name}'], 3)}" for key in shown)
            for part, numbers in parts.items()
        )
        title = html.escape(f"{kind}: {name}" if len(names) > 2 else kind)
        tables += f"<div class=wide><table><tr><th>{title}{heads}{body}</table></div>\n"
    return tables


def decisions(metrics: dict[str, Any]) -> str:
    """Thresholds with the Dice they give on this set, and components at the score with the best F1."""
    lines = []
    for name, found in metrics["calibration"].items():
        pairs = {"threshold": "threshold chosen on the validation part"} if "threshold" in found else {}
        for key, meaning in (pairs | {"best_threshold": "best threshold of this very set"}).items():
            dice = number(found[f"{key}_dice"], 3, "undefined")
            lines.append((f"{name}: {meaning}", found[key], f"Dice {dice}"))
        best = metrics["instances_at_best_f1"][name]
        ends = ", ".join(f"{key} {number(best[key], 3, 'undefined')}" for key in ("precision", "recall"))
        lines.append((f"{name}: components from the score with the best F1 on", best["score"], ends))
    rows = "".join(
        f"<tr><td>{html.escape(text)}<td class=n>{number(value, 3, 'undefined')}<td>{result}\n"
        for text, value, result in lines
    )
    return f"<div class=wide><table>{rows}</table></div>"


def confusion(matrix: list[list[int]], names: list[str]) -> str:
    """The confusion matrix in pixels and shares of the true class."""
    heads = "".join(f"<th class=n>{html.escape(name)}" for name in names)
    body = "".join(
        f"<tr><th>{html.escape(name)}"
        + "".join(f"<td class=n>{n:,}<br><small>{n / max(1, sum(row)):.2%}</small>" for n in row)
        for name, row in zip(names, matrix, strict=True)
    )
    return f"<div class=wide><table><tr><th>truth \\ predicted{heads}{body}</table></div>"


def tested(told: dict[str, Any]) -> str:
    """What was tested, in a sentence."""
    said = [f"{told['csv']} (fingerprint {told['fingerprint']})", f"model {told['model'] or 'not named'}"]
    said += [f"{told['eval_size']} pixels ({told['resize']})", f"nailseg {told['nailseg']}"]
    said += [f"faults allowed: {', '.join(told['allow'])}"] * bool(told["allow"])
    said += ["rows with faults left out"] * told["skip_bad"]
    return html.escape(f"Tested: {'; '.join(said)}.")


def absence(name: str) -> str:
    """Why a number is null in metrics.json, in words; the README's table has the rules."""
    if name.startswith(("precision_", "instance_precision_")):
        return "nothing predicted"
    return "undefined" if name in ("miou", "pixel_accuracy") else "class absent"


def number(value: Any, digits: int = 4, missing: str = "absent") -> str:
    """A value as text for HTML; `missing` stands for None."""
    if value is None:
        return missing
    return f"{value:.{digits}f}" if isinstance(value, float) else html.escape(str(value))


def between(interval: list[float] | None) -> str:
    """An interval in brackets; empty where there is none."""
    return f"[{interval[0]:.3f}, {interval[1]:.3f}]" if interval else ""
