"""The test's report: metrics.json for programs, per_image.csv for spreadsheets, report.html for people."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from nailseg import __version__
from nailseg.data.io.images import read_image_size
from nailseg.data.validation.statistics import digest
from nailseg.evaluation.html import page
from nailseg.evaluation.report_tables import FEWEST, absence
from nailseg.metrics import image_counts
from nailseg.metrics.calibration import summarize_calibration
from nailseg.metrics.confusion import dice, iou

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nailseg.data.datamodule import SegmentationDataModule
    from nailseg.data.manifest import Row
    from nailseg.metrics.image_counts import ImageCounts
    from nailseg.training.task import SegmentationTask

SMALL, LARGE = 32**2, 96**2
"""Pixels; the limits between small, medium and large objects in the COCO benchmark."""
IN_ORDER = ("small", "medium", "large", "smallest third", "middle third", "largest third")
MOST_GROUPS = 20
SLICE_NUMBERS = ("iou", "dice", "dice_per_image", "boundary_iou", "surface_dice", "ap50", "instance_recall")


def write_report(
    folder: Path, task: SegmentationTask, data: SegmentationDataModule, split: str, source: str | Path = ""
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Writes metrics.json, per_image.csv and report.html of the test that the task has just run.

    Args:
        folder: is created.
        task: with `summary` and `image_counts`, and the weights that were tested.
        data: whose split was tested.
        split: `val` or `test`.
        source: where the model came from, for the record.

    Returns:
        The content of metrics.json: the task's summary, and `tested` (see `told`), `surface_tolerance`,
        `intervals`, `slices`, `calibration`, `instances_at_best_f1` and `confusion_matrix` (rows: truth,
        columns: prediction); and the rows of per_image.csv.
    """
    folder.mkdir(parents=True)
    counts, names = task.image_counts, task.class_names
    rows = [data.rows(split)[row] for row in counts.row.tolist()]
    sizes = [read_image_size(data.manifest.root / row.image, data.max_pixels) for row in rows]
    order = sorted(range(len(rows)), key=lambda n: rows[n].image)
    metrics = task.summary | {
        "tested": told(data, split, source),
        "surface_tolerance": task.surface_tolerance,
        "intervals": image_counts.bootstrap_intervals(counts, names, order),
        "calibration": summarize_calibration(counts.histogram, names, task.threshold),
        "instances_at_best_f1": image_counts.summarize_instances(counts, names),
        "confusion_matrix": counts.matrix.sum(0).tolist(),
        "slices": slice_numbers(counts, names, slices(counts, names, rows, sizes)),
    }
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    table = per_image_table(counts, names, rows)
    with (folder / "per_image.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows(table)
    (folder / "report.html").write_text(
        page(task, data.dataset(split), metrics, table, split, folder.parent / "metrics.csv"),
        encoding="utf-8",
    )
    return metrics, table


def told(data: SegmentationDataModule, split: str, source: str | Path) -> dict[str, Any]:
    """What was tested, by which version; of the model's path only the end, for it may name a person."""
    path = Path(source)
    parts = path.relative_to(path.anchor).parts[-3 if path.parent.name == "checkpoints" else -2 :]
    facts = {"split": split, "csv": Path(data.csv).name, "model": "/".join(parts), "nailseg": __version__}
    facts |= {name: getattr(data, name) for name in ("eval_size", "resize", "allow", "skip_bad")}
    return facts | {"fingerprint": digest(data.rows(split), data.manifest.root)}


def slices(
    counts: ImageCounts, class_names: Sequence[str], rows: Sequence[Row], sizes: Sequence[tuple[int, int]]
) -> dict[str, dict[str, list[int]]]:
    """Which images belong together, several ways.

    Args:
        counts: of N images.
        class_names: C names, the first is the background.
        rows: of the N images.
        sizes: height and width of the N images.

    Returns:
        By kind and name, positions of images. Kinds: `folder`; `group` (those of at least 5 images, the 20
        largest); `size of NAME` (the median area of the image's objects: small below 32 x 32 pixels, large
        from 96 x 96 on, as in COCO); `image size` (each size, or thirds by pixels if there are more than 6).
        A kind that does not divide the images is left out.
    """
    labels: dict[str, list[str | None]] = {"folder": [str(PurePosixPath(row.image).parent) for row in rows]}
    held = Counter(row.group for row in rows if row.group)
    large = {g for g, n in held.most_common(MOST_GROUPS) if n >= FEWEST}
    labels["group"] = [row.group if row.group in large else None for row in rows]
    for c, name in enumerate(class_names[1:]):
        areas = [
            np.median(image[c].truth_area) if len(image[c].truth_area) else None for image in counts.instances
        ]
        labels[f"size of {name}"] = [
            None if a is None else "small" if a < SMALL else "medium" if a < LARGE else "large" for a in areas
        ]
    labels["image size"] = [f"{width} x {height}" for height, width in sizes]
    if len({*labels["image size"]}) > 6:
        pixels = np.array([height * width for height, width in sizes])
        edges = np.quantile(pixels, [1 / 3, 2 / 3])
        thirds = np.searchsorted(edges, pixels, side="left")
        labels["image size"] = [IN_ORDER[3 + third] for third in thirds]
    found: dict[str, dict[str, list[int]]] = {}
    for kind, own in labels.items():
        present = {label for label in own if label is not None}
        names = sorted(present, key=lambda name: (IN_ORDER.index(name) if name in IN_ORDER else -1, name))
        if len(names) > 1:
            found[kind] = {name: [n for n, label in enumerate(own) if label == name] for name in names}
    return found


def slice_numbers(
    counts: ImageCounts, class_names: Sequence[str], found: dict[str, dict[str, list[int]]]
) -> dict[str, dict[str, dict[str, Any]]]:
    """The main numbers of every slice: by kind, name and number, with `n_images`."""
    wanted = {f"{number}_{name}" for number in SLICE_NUMBERS for name in class_names[1:]}
    return {
        kind: {
            name: {"n_images": len(positions)}
            | {
                k: v
                for k, v in image_counts.summarize(counts.select(positions), class_names).items()
                if k in wanted
            }
            for name, positions in parts.items()
        }
        for kind, parts in found.items()
    }


def per_image_table(
    counts: ImageCounts, class_names: Sequence[str], rows: Sequence[Row]
) -> list[dict[str, Any]]:
    """One row per image: its paths and group, and what was counted for each foreground class.

    Dice and IoU are None where neither truth nor prediction has the class. Objects are connected components;
    found and wrong ones are judged at IoU 0.5.
    """
    dices, ious = dice(counts.matrix), iou(counts.matrix)
    table = []
    for n, row in enumerate(rows):
        entry: dict[str, Any] = {"image": row.image, "mask": row.mask, "group": row.group}
        for c, name in enumerate(class_names[1:], 1):
            matrix, instances = counts.matrix[n], counts.instances[n][c - 1]
            hit, found = int(matrix[c, c]), int(instances.hit[:, 0].sum())
            entry |= {
                f"dice_{name}": _rounded(dices[n, c].item()),
                f"iou_{name}": _rounded(ious[n, c].item()),
                f"hits_{name}": hit,
                f"false_alarms_{name}": int(matrix[:, c].sum()) - hit,
                f"misses_{name}": int(matrix[c, :].sum()) - hit,
                f"boundary_hits_{name}": int(counts.boundary[n, c, 0]),
                f"boundary_union_{name}": int(counts.boundary[n, c, 1]),
                f"objects_{name}": len(instances.truth_area),
                f"objects_found_{name}": found,
                f"objects_wrong_{name}": len(instances.score) - found,
            }
        table.append(entry)
    return table


def summary_table(metrics: dict[str, Any]) -> str:
    """The summary as aligned lines of text with intervals, counts last."""
    known = metrics.get("intervals", {})

    def shown(name: str, value: float) -> str:
        low, high = known.get(name) or (None, None)
        return f"{value:.4f}" + ("" if low is None else f"  ({low:.3f} to {high:.3f})")

    lines = [
        (k, shown(k, v)) for k, v in metrics.items() if isinstance(v, float) and k != "surface_tolerance"
    ]
    lines += [(k, absence(k)) for k, v in metrics.items() if v is None]
    lines += [(k, str(v)) for k, v in metrics.items() if isinstance(v, int)]
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in lines)


def _rounded(value: float) -> float | None:
    return None if np.isnan(value) else round(value, 6)
