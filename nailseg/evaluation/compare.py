"""`nailseg compare`: paired differences of runs over the same images, with bootstrap intervals."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from nailseg.checkpoints import model_folder
from nailseg.errors import DataError
from nailseg.evaluation import per_image, plots
from nailseg.evaluation.per_image import NUMBERS, OPTIONAL, ImageTable
from nailseg.metrics import image_counts
from nailseg.metrics.confusion import none_if_nan
from nailseg.model_info import RUNS

FEW_GROUPS = 10  # with fewer the percentile bootstrap is unreliable


def compare_runs(
    reference: str | Path, runs: Sequence[str | Path], /, *, out: str | Path | None = None, seed: int = 0
) -> str:
    """Compares runs over the same images: paired differences with bootstrap intervals.

    Args:
        reference: A run folder (its newest test is read), a test folder or a per_image.csv.
        runs: One or more such folders or files, each to compare with the reference.
        out: New folder for compare.json, compare.csv and compare.svg; runs/compare-NAME-NAME by default.
        seed: Seed of the bootstrap.

    Returns:
        The table as text, and where it was written.

    Raises:
        ConfigError: No per_image.csv there.
        DataError: See `per_image.read_table` and `common_counts`.
    """
    tables = [per_image.read_table(per_image.find_table(path)) for path in (reference, *runs)]
    result, differences = compare(tables, seed)
    name = "compare-" + "-".join(run.replace("/", "-") for run in result["runs"])
    folder = model_folder.unique_path(Path(out or RUNS / name[:120]))
    folder.mkdir(parents=True)
    (folder / "compare.json").write_text(json.dumps(result, indent=2) + "\n")
    per_image.write_csv(pd.DataFrame(result["rows"]), folder / "compare.csv")
    (folder / "compare.svg").write_text(plots.plot_comparison(result, differences), encoding="utf-8")
    return f"{_text_table(result)}\nwritten: {folder}"


def compare(
    tables: Sequence[ImageTable], seed: int = 0
) -> tuple[dict[str, Any], dict[str, list[np.ndarray]]]:
    """Differences run - reference over the images that all tables have.

    All runs get the same resamples, so that an image hard for both does not widen the interval (paired
    bootstrap, Efron & Tibshirani 1993). Rows that share a `group` are resampled together, because
    near-duplicates are not independent. The first of the tables is the reference.

    Returns:
        The content of compare.json, and per class the sorted differences in Dice of the images whose truth
        has it, one array for each run but the reference.
    """
    images, counts = common_counts(tables)
    names = unique_names(tables)
    # an image without a group is a group of its own
    groups = tables[0].rows.loc[images].get("group", pd.Series("", images))
    group_of_image, group_names = pd.factorize(groups.where(groups != "", images))
    group_weights = image_counts.resample_weights(len(group_names), seed=seed)
    weights = group_weights[:, group_of_image]  # (R, groups) -> (R, images)
    rows, shares, differences = [], [], {}
    for class_name, counts_of_runs in counts.items():
        reference, *others = (image_counts.dice_per_image(each).numpy() for each in counts_of_runs)
        present = ~np.isnan(reference)
        differences[class_name] = [np.sort((other - reference)[present]) for other in others]
        for name, values in zip(names[1:], differences[class_name], strict=True):
            signs = {"better": values > 0, "worse": values < 0, "equal": values == 0}
            share = {word: float(sign.mean()) if len(sign) else None for word, sign in signs.items()}
            shares.append({"class": class_name, "run": name} | share)
        # all resamples of a single group are equal, which is not certainty: it gets no interval
        is_single = len(set(group_of_image[present])) < 2
        class_rows = compare_class(names, counts_of_runs, weights[:0] if is_single else weights)
        rows += [{"class": class_name} | row for row in class_rows]
    runs = {name: str(table.path) for name, table in zip(names, tables, strict=True)}
    left_out = {str(table.path): len(table.rows) - len(images) for table in tables}
    result = {"runs": runs, "n_images": len(images), "n_groups": len(group_names), "left_out": left_out}
    result |= {"resamples": image_counts.RESAMPLES, "level": image_counts.LEVEL, "seed": seed}
    return result | {"rows": rows, "images": shares}, differences


def compare_class(
    names: Sequence[str], counts: Sequence[Tensor], weights: np.ndarray
) -> list[dict[str, Any]]:
    """The rows of compare.csv of one class: each number of each run, and its difference to the first run.

    `counts` are the `class_counts` of each run, `weights` int64 (R, N) those of the bootstrap; with R = 0
    there are no intervals.
    """
    whole_set = np.ones((1, weights.shape[1]), np.int64)
    weightings = torch.from_numpy(np.concatenate([whole_set, weights])).double()
    ratios = [image_counts.class_ratios(own, weightings) for own in counts]  # of each run: number -> (1 + R,)
    rows = []
    for number in NUMBERS:
        values = [run[number].numpy() for run in ratios]
        if np.isnan([own[0] for own in values]).all() and number in OPTIONAL:
            continue
        for n, name in enumerate(names):
            difference, *resampled = values[n] - values[0]
            low, high = image_counts.percentile_interval(np.array(resampled))
            verdict = "no difference shown"
            if n == 0:
                difference, low, high, verdict = np.nan, np.nan, np.nan, "reference"
            elif low > 0:
                verdict = "better"
            elif high < 0:
                verdict = "worse"
            row = {"number": number, "run": name, "value": none_if_nan(values[n][0])}
            row |= {"difference": none_if_nan(difference), "low": none_if_nan(low), "high": none_if_nan(high)}
            rows.append(row | {"verdict": verdict})
    return rows


def unique_names(tables: Sequence[ImageTable]) -> list[str]:
    """Names of the runs. Equal names become the shortest ends of their paths that differ, or get a number."""
    names = [table.name for table in tables]
    paths = [Path(os.path.abspath(table.path)) for table in tables]
    places = [(path.parent if path.name == "per_image.csv" else path).parts[1:] for path in paths]
    unique = []
    for n, (name, place) in enumerate(zip(names, places, strict=True)):
        if names.count(name) == 1:
            unique.append(name)
            continue
        others = places[:n] + places[n + 1 :]
        ends = [place[-depth:] for depth in range(2, len(place) + 1)]
        different = ["/".join(end) for end in ends if all(other[-len(end) :] != end for other in others)]
        unique.append(different[0] if different else f"{name} ({n + 1})")
    return unique


def common_counts(tables: Sequence[ImageTable]) -> tuple[list[str], dict[str, list[Tensor]]]:
    """The images that all tables have, sorted by path, and per class the counts of each table.

    Raises:
        DataError: other classes, no common image, or other true pixels (hits + misses) in the same image.
    """
    first = tables[0]
    for table in tables:
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
    counts = {c: [per_image.read_counts(table, images, c) for table in tables] for c in first.class_names}
    # true pixels of each class, run and image: hits + misses, (classes, runs, N, K) -> (classes, runs, N)
    truth = torch.stack([torch.stack(own) for own in counts.values()])[..., [0, 2]].sum(-1)
    differing = (truth != truth[:, :1]).any(0)  # (runs, N)
    for table, differs in zip(tables, differing, strict=True):
        if differs.any():
            raise DataError(
                f"{table.path}: expected the truth of {first.path}, found other masks for "
                f"{images[int(differs.nonzero()[0])]} ({int(differs.sum())} images in all). "
                "Test both runs with the same masks."
            )
    return images, counts


def _text_table(result: dict[str, Any]) -> str:
    table = pd.DataFrame(result["rows"], dtype=object)
    table["value"] = table["value"].map(lambda value: "undefined" if value is None else f"{value:.4f}")
    for name in ("difference", "low", "high"):
        table[name] = table[name].map(lambda value: "" if value is None else f"{value:+.4f}")
    table = table.rename(columns={"low": f"{image_counts.LEVEL_TEXT} from", "high": "to"})
    lines = [f"{run}: {path}" for run, path in result["runs"].items()]
    size = f"{result['n_images']} images in {result['n_groups']} groups, seed {result['seed']}"
    lines += ["", f"run - reference, paired bootstrap over {size}", ""]
    lines += [table.to_string(index=False), ""]
    for row in result["images"]:
        if row["equal"] is not None:
            shares = ", ".join(f"{row[word]:.0%} {word}" for word in ("better", "worse", "equal"))
            lines.append(f"Dice of the images with {row['class']}, {row['run']}: {shares}")
    lines += [f"not in every run, left out: {n} images of {p}" for p, n in result["left_out"].items() if n]
    if result["n_groups"] < FEW_GROUPS:
        lines.append(f"groups: only {result['n_groups']}, so the intervals are narrower than they should be")
    return "\n".join(lines)
