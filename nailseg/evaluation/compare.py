"""`nailseg compare`: paired differences of runs over the same images, with bootstrap intervals."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from nailseg.checkpoints import model_folder
from nailseg.errors import DataError
from nailseg.evaluation import plots
from nailseg.evaluation.per_image import NUMBERS, ImageTable, find_table, read_counts, read_table, write_csv
from nailseg.metrics.confusion import none_if_nan
from nailseg.metrics.image_counts import (
    RESAMPLES,
    class_ratios,
    dice_per_image,
    percentile_interval,
    resample_weights,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

FEW_GROUPS = 10  # with fewer the percentile bootstrap is unreliable
OPTIONAL = ("boundary_iou", "surface_dice", "instance_precision", "instance_recall")
"""Numbers that older per_image.csv files have no counts for."""


def compare_runs(
    paths: Sequence[str | Path], *, out: str | Path | None = None, parent: str | Path = ".", seed: int = 0
) -> str:
    """Compares runs with the first of them and writes compare.json, compare.csv and compare.svg.

    Args:
        paths: run folders (their newest test is compared), test folders, or per_image.csv files.
        out: folder to create.
        parent: where the folder `compare-NAME-NAME` is created without `out`, with a number if that exists.
        seed: of the bootstrap.

    Returns:
        The table as text, and where it was written.

    Raises:
        ConfigError: no per_image.csv there.
        DataError: see `per_image.read_table` and `compare`.
    """
    result, differences = compare([read_table(find_table(path)) for path in paths], seed)
    name = "compare-" + "-".join(run.replace("/", "-") for run in result["runs"])
    folder = model_folder.unique_path(Path(out) if out else Path(parent) / name[:120])
    folder.mkdir(parents=True)
    (folder / "compare.json").write_text(json.dumps(result, indent=2) + "\n")
    write_csv(pd.DataFrame(result["rows"]), folder / "compare.csv")
    (folder / "compare.svg").write_text(plots.plot_comparison(result, differences), encoding="utf-8")
    return f"{_text_table(result)}\nwritten: {folder}"


def compare(
    tables: Sequence[ImageTable], seed: int = 0
) -> tuple[dict[str, Any], dict[str, list[np.ndarray]]]:
    """Differences run - reference over the images that all tables have.

    All runs get the same resamples, so that an image hard for both does not widen the interval (paired
    bootstrap, Efron & Tibshirani 1993). Rows that share a `group` are resampled together, because
    near-duplicates are not independent.

    Args:
        tables: two or more; the first is the reference.
        seed: of the bootstrap.

    Returns:
        The content of compare.json, and per class the sorted differences in Dice of the images whose truth
        has it, one array for each run but the reference.

    Raises:
        DataError: other classes, no common image, or other truth for the same image.
    """
    tables, images, counts = with_unique_names(tables), common_images(tables), {}
    for name in tables[0].class_names:
        counts[name] = [read_counts(table, images, name) for table in tables]
    require_same_truth(tables, images, counts)
    # an image without a group is a group of its own
    groups = tables[0].rows.loc[images].get("group", pd.Series("", images))
    group, group_names = pd.factorize(groups.where(groups != "", images))
    weights = resample_weights(len(group_names), seed=seed)[:, group]
    names = [table.name for table in tables]
    rows, shares, differences = [], [], {}
    for class_name, own in counts.items():
        dices = [dice_per_image(each).numpy() for each in own]
        present = ~np.isnan(dices[0])
        differences[class_name] = [np.sort((each - dices[0])[present]) for each in dices[1:]]
        for name, values in zip(names[1:], differences[class_name], strict=True):
            shares.append({"class": class_name, "run": name} | share_of_signs(values))
        # all resamples of a single group are equal, which is not certainty
        resamples = weights if len(set(group[present])) > 1 else weights[:0]
        rows += [{"class": class_name} | row for row in compare_class(names, own, resamples)]
    result = {
        "runs": {table.name: str(table.path) for table in tables},
        "n_images": len(images),
        "n_groups": len(group_names),
        "left_out": {str(table.path): len(table.rows) - len(images) for table in tables},
        "resamples": RESAMPLES,
        "level": 0.95,
        "seed": seed,
        "rows": rows,
        "images": shares,
    }
    return result, differences


def share_of_signs(differences: np.ndarray) -> dict[str, float | None]:
    """Shares of the images that got better, worse or stayed equal; None without images.

    >>> share_of_signs(np.array([-0.1, 0.0, 0.2, 0.3]))
    {'better': 0.5, 'worse': 0.25, 'equal': 0.25}
    """
    signs = {"better": differences > 0, "worse": differences < 0, "equal": differences == 0}
    return {word: float(sign.mean()) if len(sign) else None for word, sign in signs.items()}


def compare_class(
    names: Sequence[str], counts: Sequence[Tensor], weights: np.ndarray
) -> list[dict[str, Any]]:
    """Each number of each run for one class, and its difference to the first run.

    Args:
        names: of the runs, the reference first.
        counts: of each run, as `class_counts`.
        weights: int64 (R, N) of the bootstrap; without resamples there are no intervals.

    Returns:
        The rows of compare.csv without their class.
    """
    weight = torch.from_numpy(weights).double()
    values = [class_ratios(own, torch.ones(1, weight.shape[1]).double()) for own in counts]
    resampled = [class_ratios(own, weight) for own in counts]
    rows = []
    for number in NUMBERS:
        value_of = [own[number].item() for own in values]
        if np.isnan(value_of).all() and number in OPTIONAL:
            continue
        for n, name in enumerate(names):
            row = {"number": number, "run": name, "value": none_if_nan(value_of[n])}
            row |= {"difference": None, "low": None, "high": None, "verdict": "reference"}
            if n > 0:
                low, high = percentile_interval((resampled[n][number] - resampled[0][number]).numpy())
                row["difference"] = none_if_nan(value_of[n] - value_of[0])
                row |= {"low": none_if_nan(low), "high": none_if_nan(high)}
                row["verdict"] = "better" if low > 0 else "worse" if high < 0 else "no difference shown"
            rows.append(row)
    return rows


def with_unique_names(tables: Sequence[ImageTable]) -> list[ImageTable]:
    """Runs of the same name get the shortest end of their path that no other has, or a number."""
    paths = [Path(os.path.abspath(table.path)) for table in tables]
    places = [(path.parent if path.name == "per_image.csv" else path).parts[1:] for path in paths]
    occurrences = Counter(table.name for table in tables)
    unique = []
    for n, (table, place) in enumerate(zip(tables, places, strict=True)):
        others = places[:n] + places[n + 1 :]
        depths = range(2, len(place) + 1)
        depth = next((d for d in depths if all(other[-d:] != place[-d:] for other in others)), None)
        name = "/".join(place[-depth:]) if depth else f"{table.name} ({n + 1})"
        unique.append(replace(table, name=name) if occurrences[table.name] > 1 else table)
    return unique


def common_images(tables: Sequence[ImageTable]) -> list[str]:
    """The images that all tables have, sorted by path; DataError if there is none, or classes differ."""
    first = tables[0]
    for table in tables[1:]:
        if set(table.class_names) != set(first.class_names):
            raise DataError(
                f"{table.path}: expected classes {', '.join(first.class_names)} as in {first.path}, "
                f"found {', '.join(table.class_names)}. Compare runs of the same --data.classes."
            )
    images = sorted(set.intersection(*(set(table.rows.index) for table in tables)))
    if not images:
        raise DataError(
            f"{', '.join(str(t.path) for t in tables)}: expected common images, found none. "
            "Test both runs with the same --data.csv and --data.root."
        )
    return images


def require_same_truth(
    tables: Sequence[ImageTable], images: Sequence[str], counts: dict[str, list[Tensor]]
) -> None:
    """Raises DataError where two tables count different true pixels (hits + misses) in an image."""
    truth = torch.stack([torch.stack(own)[..., [0, 2]].sum(-1) for own in counts.values()])  # (C, runs, N)
    for table, differs in zip(tables, (truth != truth[:, :1]).any(0), strict=True):
        if differs.any():
            first = images[int(differs.nonzero()[0])]
            raise DataError(
                f"{table.path}: expected the truth of {tables[0].path}, found other masks for "
                f"{first} ({int(differs.sum())} images in all). Test both runs with the same masks."
            )


def _text_table(result: dict[str, Any]) -> str:
    text = [("class", "number", "run", "value", "difference", "95 % interval", "verdict")]
    for row in result["rows"]:
        value = "undefined" if row["value"] is None else f"{row['value']:.4f}"
        difference = "" if row["difference"] is None else f"{row['difference']:+.4f}"
        ends = "" if row["low"] is None else f"{row['low']:+.4f} to {row['high']:+.4f}"
        text.append((row["class"], row["number"], row["run"], value, difference, ends, row["verdict"]))
    widths = [max(map(len, column)) for column in zip(*text, strict=True)]
    lines = [f"{run}: {path}" for run, path in result["runs"].items()]
    size = f"{result['n_images']} images in {result['n_groups']} groups, seed {result['seed']}"
    lines += ["", f"run - reference, paired bootstrap over {size}", ""]
    lines += ["  ".join(map(str.ljust, line, widths)).rstrip() for line in text] + [""]
    for row in result["images"]:
        if row["equal"] is not None:
            shares = ", ".join(f"{row[word]:.0%} {word}" for word in ("better", "worse", "equal"))
            lines.append(f"Dice of the images with {row['class']}, {row['run']}: {shares}")
    lines += [f"not in every run, left out: {n} images of {p}" for p, n in result["left_out"].items() if n]
    if result["n_groups"] < FEW_GROUPS:
        lines.append(f"groups: only {result['n_groups']}, so the intervals are narrower than they should be")
    return "\n".join(lines)
