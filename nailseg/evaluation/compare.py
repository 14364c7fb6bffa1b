"""`nailseg compare`: paired differences of runs over the same images, with bootstrap intervals."""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nailseg.checkpoints import model_folder
from nailseg.cli import arguments
from nailseg.errors import DataError
from nailseg.evaluation import plots
from nailseg.evaluation.per_image import (
    NUMBERS,
    Table,
    find_table,
    image_dice,
    measures,
    pixel_counts,
    read_table,
)
from nailseg.metrics.image_counts import none_if_nan, percentile_interval, resample_weights

if TYPE_CHECKING:
    from collections.abc import Sequence

RESAMPLES = 1000
FEW_GROUPS = 10  # below, the percentile bootstrap says little


def compare_runs(paths: Sequence[str | Path], out: str | Path | None = None, seed: int = 0) -> str:
    """Compares runs with the first of them and writes compare.json, compare.csv and compare.svg.

    Args:
        paths: run folders (their newest test counts), test folders, or per_image.csv files.
        out: folder to make; `runs/compare-NAME-NAME` by default, with a number where that is taken.
        seed: of the bootstrap.

    Returns:
        The table as text, and where it was written.

    Raises:
        ConfigError: no per_image.csv there.
        DataError: see `image_table.read_table` and `compare`.
    """
    result, deltas = compare([read_table(find_table(path)) for path in paths], seed)
    name = "compare-" + "-".join(run.replace("/", "-") for run in result["runs"])
    folder = model_folder.unique_path(Path(out) if out else arguments.RUNS / name[:120])
    folder.mkdir(parents=True)
    (folder / "compare.json").write_text(json.dumps(result, indent=2) + "\n")
    with (folder / "compare.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(result["rows"][0]))
        writer.writeheader()
        writer.writerows(result["rows"])
    (folder / "compare.svg").write_text(plots.comparison(result, deltas), encoding="utf-8")
    return f"{_text_table(result)}\nwritten: {folder}"


def with_own_names(tables: Sequence[Table]) -> list[Table]:
    """Runs that share a name get the shortest end of their path that is theirs alone, or a number."""
    paths = [Path(os.path.abspath(table.path)) for table in tables]
    places = [(path.parent if path.name == "per_image.csv" else path).parts[1:] for path in paths]
    shared = Counter(table.name for table in tables)
    own = []
    for n, (table, place) in enumerate(zip(tables, places, strict=True)):
        others = places[:n] + places[n + 1 :]
        depths = (d for d in range(2, len(place) + 1) if all(o[-d:] != place[-d:] for o in others))
        depth = next(depths, None)
        name = "/".join(place[-depth:]) if depth else f"{table.name} ({n + 1})"
        own.append(table._replace(name=name) if shared[table.name] > 1 else table)
    return own


def compare(tables: Sequence[Table], seed: int = 0) -> tuple[dict[str, Any], dict[str, list[np.ndarray]]]:
    """Differences run - reference over the images that all tables have.

    Both runs get the same resamples, so that an image hard for both does not widen the interval (paired
    bootstrap, Efron & Tibshirani 1993). Rows that share a `group` are drawn together, for twins are not
    independent.

    Args:
        tables: two or more; the first is the reference.
        seed: of the bootstrap.

    Returns:
        The content of compare.json, and per class the sorted differences in Dice of the images whose truth
        has it, one array for each run but the reference.

    Raises:
        DataError: other classes, no common image, or other truth for the same image.
    """
    tables = with_own_names(tables)
    first, classes = tables[0], tables[0].classes
    for table in tables[1:]:
        if set(table.classes) != set(classes):
            raise DataError(
                f"{table.path}: expected classes {', '.join(classes)} as in {first.path}, "
                f"found {', '.join(table.classes)}. Compare runs of the same --data.classes."
            )
    images = sorted(set.intersection(*(set(table.rows) for table in tables)))
    if not images:
        raise DataError(
            f"{', '.join(str(t.path) for t in tables)}: expected common images, found none. "
            "Test both runs with the same --data.csv and --data.root."
        )
    counts = np.stack([pixel_counts(table, images, classes) for table in tables])
    truth = counts[..., 0] + counts[..., 2]
    for table, own in zip(tables[1:], truth[1:], strict=True):
        if (other := np.flatnonzero((own != truth[0]).any(1))).size:
            raise DataError(
                f"{table.path}: expected the truth of {first.path}, found other masks for "
                f"{images[other[0]]} ({other.size} images in all). Test both runs with the same masks."
            )
    numbers: dict[str, int] = {}
    group = np.array([numbers.setdefault(first.rows[i].get("group") or i, len(numbers)) for i in images])
    values = np.stack([measures(c, np.ones((1, len(images))))[0] for c in counts])
    weights = resample_weights(len(numbers), RESAMPLES, seed)[:, group]
    resampled = [measures(c, weights) for c in counts]
    scores = image_dice(counts)
    rows, shares, deltas = [], [], {}
    for c, name in enumerate(classes):
        present = truth[0, :, c] > 0
        deltas[name] = [np.sort((s - scores[0])[present, c]) for s in scores[1:]]
        for table, d in zip(tables[1:], deltas[name], strict=True):
            parts = {"better": d > 0, "worse": d < 0, "equal": d == 0}
            means = {k: float(p.mean()) if p.size else None for k, p in parts.items()}
            shares.append({"class": name, "run": table.name} | means)
        # a group alone is the same in every resample, which is not certainty
        certain = present.any() and len(set(group[present])) > 1
        for (k, number), (r, table) in product(enumerate(NUMBERS), enumerate(tables)):
            if np.isnan(values[:, c, k]).all() and number.startswith(("boundary", "instance")):
                continue  # a test from before per_image.csv had them
            change = (resampled[r] - resampled[0])[:, c, k]
            change = change[~np.isnan(change)]  # resamples without the class say nothing
            low, high = percentile_interval(change) if r and certain and change.size else (np.nan, np.nan)
            verdict = "better" if low > 0 else "worse" if high < 0 else "no difference shown"
            row = {"class": name, "number": number, "run": table.name, "value": none_if_nan(values[r, c, k])}
            row["difference"] = none_if_nan(values[r, c, k] - values[0, c, k]) if r else None
            row |= {
                "low": none_if_nan(low),
                "high": none_if_nan(high),
                "verdict": verdict if r else "reference",
            }
            rows.append(row)
    left_out = {str(table.path): len(table.rows) - len(images) for table in tables}
    facts: dict[str, Any] = {"runs": {table.name: str(table.path) for table in tables}}
    facts |= {"n_images": len(images), "n_groups": len(numbers), "left_out": left_out}
    facts |= {"resamples": RESAMPLES, "level": 0.95, "seed": seed}
    return facts | {"rows": rows, "images": shares}, deltas


def _text_table(result: dict[str, Any]) -> str:
    text = [("class", "number", "run", "value", "difference", "95 % interval", "verdict")]
    for row in result["rows"]:
        value = "undefined" if row["value"] is None else f"{row['value']:.4f}"
        difference = "" if row["difference"] is None else f"{row['difference']:+.4f}"
        between = "" if row["low"] is None else f"{row['low']:+.4f} to {row['high']:+.4f}"
        text.append((row["class"], row["number"], row["run"], value, difference, between, row["verdict"]))
    widths = [max(map(len, column)) for column in zip(*text, strict=True)]
    lines = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in text]
    facts = f"{result['n_images']} images in {result['n_groups']} groups, seed {result['seed']}"
    tested = [f"{run}: {path}" for run, path in result["runs"].items()]
    lines = [*tested, "", f"run - reference, paired bootstrap over {facts}", "", *lines, ""]
    for row in result["images"]:
        if row["equal"] is not None:
            words = ", ".join(f"{row[word]:.0%} {word}" for word in ("better", "worse", "equal"))
            lines.append(f"Dice of the images with {row['class']}, {row['run']}: {words}")
    lines += [f"not in every run, left out: {n} images of {p}" for p, n in result["left_out"].items() if n]
    if result["n_groups"] < FEW_GROUPS:
        lines.append(f"groups: only {result['n_groups']}, so the intervals are narrower than they should be")
    return "\n".join(lines)
