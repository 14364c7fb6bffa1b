"""The test's report: metrics.json for programs, per_image.csv for spreadsheets, report.html for people."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nailseg import __version__
from nailseg.data.datamodule import SegmentationDataModule
from nailseg.data.io.images import read_image_size
from nailseg.data.manifest import Row
from nailseg.data.validation.statistics import compute_fingerprint
from nailseg.evaluation.html import FEW_IMAGES, SLICE_NUMBERS, explain_none, render_report
from nailseg.evaluation.per_image import image_table, write_csv
from nailseg.inference.segmenter import Segmenter
from nailseg.metrics import image_counts
from nailseg.metrics.calibration import summarize_calibration
from nailseg.metrics.image_counts import ImageCounts

OBJECT_SIZES = 32**2, 96**2  # pixels; between small, medium and large objects in the COCO benchmark
IN_ORDER = ("small", "medium", "large", "smallest third", "middle third", "largest third")
MOST_GROUPS = 20
MOST_SIZES = 6


def write_report(
    folder: Path,
    counts: ImageCounts,
    segmenter: Segmenter,
    data: SegmentationDataModule,
    split: str,
    source: str | Path,
    surface_tolerance: float,
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Writes metrics.json, per_image.csv and report.html of a test.

    Args:
        folder: is created.
        counts: of every image of the split.
        segmenter: the model that was tested; it predicts the images of the report again.
        data: whose split was tested.
        split: `val` or `test`.
        source: where the model came from, for the record; may be empty.
        surface_tolerance: with which the images were counted, in pixels; as in `count_images`.

    Returns:
        The content of metrics.json: the summary, and `tested` (see `describe_test`), `surface_tolerance`,
        `intervals`, `slices`, `calibration`, `instances_at_best_f1` and `confusion_matrix` (rows: truth,
        columns: prediction); and the rows of per_image.csv.
    """
    folder.mkdir(parents=True)
    names = segmenter.class_names
    rows = [data.rows(split)[row] for row in counts.row.tolist()]
    sizes = [read_image_size(data.manifest.root / row.image, data.max_pixels) for row in rows]
    order = sorted(range(len(rows)), key=lambda n: rows[n].image)
    metrics = image_counts.summarize(counts, names) | {
        "tested": describe_test(data, split, source),
        "surface_tolerance": surface_tolerance,
        "intervals": image_counts.bootstrap_intervals(counts, names, order),
        "calibration": summarize_calibration(counts.histogram, names, segmenter.info.threshold),
        "instances_at_best_f1": image_counts.summarize_instances(counts, names),
        "confusion_matrix": counts.matrix.sum(0).tolist(),
        "slices": summarize_slices(counts, names, find_slices(counts, names, rows, sizes)),
    }
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    table = image_table(counts, names, rows)
    write_csv(table, folder / "per_image.csv")
    page = render_report(metrics, table, segmenter, data.dataset(split), folder.parent / "metrics.csv")
    (folder / "report.html").write_text(page, encoding="utf-8")
    return metrics, table


def describe_test(data: SegmentationDataModule, split: str, source: str | Path) -> dict[str, Any]:
    """What was tested, and by which version; only the end of the model's path, which may name a person."""
    path = Path(source)
    parts = path.relative_to(path.anchor).parts[-3 if path.parent.name == "checkpoints" else -2 :]
    facts = {"split": split, "csv": Path(data.csv).name, "model": "/".join(parts), "nailseg": __version__}
    facts |= {name: getattr(data, name) for name in ("eval_size", "resize", "allow", "skip_bad")}
    return facts | {"fingerprint": compute_fingerprint(data.rows(split), data.manifest.root)}


def find_slices(
    counts: ImageCounts, class_names: Sequence[str], rows: Sequence[Row], sizes: Sequence[tuple[int, int]]
) -> dict[str, dict[str, list[int]]]:
    """Divides the images, whose height and width are `sizes`: by kind and name, positions of images.

    Kinds: `folder`; `group` (those of at least `FEW_IMAGES`, the `MOST_GROUPS` largest); `size of NAME` (the
    median area of the image's objects, see `OBJECT_SIZES`); `image size` (each size, or thirds by pixels if
    there are more than `MOST_SIZES`). A kind that does not divide the images is left out.
    """
    labels: dict[str, list[Any]] = {"folder": [row.folder for row in rows]}
    occurrences = Counter(row.group for row in rows if row.group)
    large = {group for group, n in occurrences.most_common(MOST_GROUPS) if n >= FEW_IMAGES}
    labels["group"] = [row.group if row.group in large else None for row in rows]
    for c, name in enumerate(class_names[1:]):
        areas = [image[c].truth_area for image in counts.instances]
        labels[f"size of {name}"] = [
            IN_ORDER[np.digitize(np.median(area), OBJECT_SIZES)] if len(area) else None for area in areas
        ]
    labels["image size"] = [f"{width} x {height}" for height, width in sizes]
    if len(set(labels["image size"])) > MOST_SIZES:
        pixels = np.prod(sizes, axis=1)
        thirds = np.searchsorted(np.quantile(pixels, [1 / 3, 2 / 3]), pixels, side="left")
        labels["image size"] = [IN_ORDER[3 + third] for third in thirds]
    found: dict[str, dict[str, list[int]]] = {}
    for kind, own in labels.items():
        names = {name for name in own if name is not None}
        if len(names) > 1:
            ordered = sorted(names, key=lambda name: (IN_ORDER.index(name) if name in IN_ORDER else -1, name))
            found[kind] = {name: [n for n, label in enumerate(own) if label == name] for name in ordered}
    return found


def summarize_slices(
    counts: ImageCounts, class_names: Sequence[str], slices: dict[str, dict[str, list[int]]]
) -> dict[str, dict[str, dict[str, Any]]]:
    """The main numbers of every slice: by kind, name and number, with `n_images`."""
    kept = {"n_images"} | {f"{number}_{name}" for number in SLICE_NUMBERS for name in class_names[1:]}
    found: dict[str, dict[str, dict[str, Any]]] = {kind: {} for kind in slices}
    for kind, parts in slices.items():
        for name, positions in parts.items():
            summary = image_counts.summarize(counts.select(positions), class_names)
            found[kind][name] = {key: value for key, value in summary.items() if key in kept}
    return found


def summary_table(metrics: dict[str, Any]) -> str:
    """The summary as aligned lines of text with intervals, counts last."""
    ratios, undefined, counts = {}, {}, {}
    for name, value in metrics.items():
        if isinstance(value, float) and name != "surface_tolerance":
            ends = metrics.get("intervals", {}).get(name)
            ratios[name] = f"{value:.4f}" + (f"  ({ends[0]:.3f} to {ends[1]:.3f})" if ends else "")
        elif value is None:
            undefined[name] = explain_none(name)
        elif isinstance(value, int):
            counts[name] = str(value)
    lines = ratios | undefined | counts
    width = max(map(len, lines))
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in lines.items())
