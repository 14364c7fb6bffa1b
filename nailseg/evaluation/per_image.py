"""per_image.csv read back: pixel counts of each image, and the numbers of any weighting of the images."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nailseg.errors import ConfigError, DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

NUMBERS = ("dice", "iou", "dice_per_image", "precision", "recall")
NUMBERS += ("boundary_iou", "instance_precision", "instance_recall")
KINDS = ("hits", "false_alarms", "misses", "boundary_hits", "boundary_union")
KINDS += ("objects", "objects_found", "objects_wrong")


class Table(NamedTuple):
    """A per_image.csv: its lines by image path, and its foreground classes in the order of the columns."""

    path: Path
    name: str  # of the run, for people
    rows: dict[str, dict[str, str]]
    classes: tuple[str, ...]


def find_table(run: str | Path) -> Path:
    """The per_image.csv that a path stands for: itself, the folder's own, or that of the newest test."""
    path = Path(run)
    tests = [p for p in path.glob("test*/per_image.csv") if re.fullmatch(r"test(-\d+)?", p.parent.name)]
    newest = sorted(tests, key=lambda p: (len(p.parent.name), p.parent.name))[-1:]
    for candidate in (path, path / "per_image.csv", *newest):
        if candidate.is_file():
            return candidate
    raise ConfigError(
        f"{path}: expected a run folder with a test, a test folder or a per_image.csv; found none. "
        f"Make it with: nailseg test --config {path}/config.yaml"
    )


def read_table(path: Path) -> Table:
    """Reads a per_image.csv.

    Raises:
        DataError: it is empty, is something else, or names an image twice.
    """
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        lines = list(csv.DictReader(file))
    columns = list(filter(None, lines[0])) if lines else []
    classes = tuple(column.removeprefix("hits_") for column in columns if column.startswith("hits_"))
    if "image" not in columns or not classes:
        raise DataError(
            f"{path}: expected columns image, hits_CLASS; found {columns or 'no row'}. Test anew."
        )
    rows = {line["image"]: line for line in lines}
    if len(rows) < len(lines):
        raise DataError(f"{path}: expected each image once, found {len(lines)} rows of {len(rows)} images.")
    folder = path.absolute().parent
    name = f"{folder.parent.name}/{folder.name}" if folder.name.startswith("test-") else folder.name
    return Table(path, folder.parent.name if folder.name in ("test", "val") else name, rows, classes)


def pixel_counts(table: Table, images: Sequence[str], classes: Sequence[str]) -> np.ndarray:
    """float64 (N, C, 8), KINDS per image and class; nan where all but the first three are missing."""
    names = [[f"{kind}_{name}" for kind in KINDS] for name in classes]
    rows = [table.rows[image] for image in images]
    try:
        counts = np.array([[[float(row.get(k) or "nan") for k in keys] for keys in names] for row in rows])
    except ValueError:
        counts = np.full(len(KINDS), np.nan)
    if np.isnan(counts[..., :3]).any():
        raise DataError(f"{table.path}: expected numbers in hits_, false_alarms_ and misses_. Test anew.")
    return counts


def measures(counts: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The NUMBERS of weighted images.

    Args:
        counts: float64 (N, C, 8), as `pixel_counts`.
        weights: (n, N), how often each image counts.

    Returns:
        float64 (n, C, 8); nan where the class is absent, or for a precision where nothing is predicted.
    """
    weights = weights.astype(np.float64)  # sums of pixels stay exact below 2**53
    total = np.moveaxis(np.tensordot(weights, counts, 1), -1, 0)
    hits, false_alarms, misses, inner, union, objects, found, wrong = total
    scores = image_dice(counts)
    present = ~np.isnan(scores)
    per_image = _ratio(weights @ np.where(present, scores, 0.0), weights @ present.astype(np.float64))
    overlap = hits + false_alarms + misses
    pixels = [_ratio(2 * hits, overlap + hits), _ratio(hits, overlap), per_image]
    pixels += [_ratio(hits, hits + false_alarms), _ratio(hits, hits + misses), _ratio(inner, union)]
    return np.stack([*pixels, _ratio(found, found + wrong), _ratio(found, objects)], -1)


def image_dice(counts: np.ndarray) -> np.ndarray:
    """Dice of each image and class, float64 (…, N, C) from counts (…, N, C, 8); nan where truth lacks it."""
    hits, false_alarms, misses = np.moveaxis(counts[..., :3], -1, 0)
    return np.where(hits + misses > 0, _ratio(2 * hits, 2 * hits + false_alarms + misses), np.nan)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)
