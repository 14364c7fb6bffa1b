"""per_image.csv: writes the counts of each image as a table, and reads such a file as counts."""

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from nailseg.data.manifest import Row
from nailseg.errors import ConfigError, DataError
from nailseg.metrics.confusion import dice, iou
from nailseg.metrics.image_counts import CLASS_COUNTS, ImageCounts, class_counts

OPTIONAL = ("boundary_iou", "surface_dice", "instance_precision", "instance_recall")
"""Numbers for which older per_image.csv files have no counts."""
NUMBERS = ("dice", "iou", "dice_per_image", "precision", "recall", *OPTIONAL)
"""The numbers of a per_image.csv. Average precision is not one: it needs the score of every component."""


@dataclass(frozen=True)
class ImageTable:
    """The content of a per_image.csv."""

    path: Path
    name: str  # of the run, for tables and figures
    rows: pd.DataFrame  # all cells as text; the index is the image's path
    class_names: tuple[str, ...]  # the foreground classes in the order of the columns


def image_table(counts: ImageCounts, class_names: Sequence[str], rows: Sequence[Row]) -> pd.DataFrame:
    """One row per image: its paths and group, and for each foreground class Dice, IoU and the counts.

    Dice and IoU are nan where neither truth nor prediction has the class. The index is `counts.row`.
    """
    columns = {key: [getattr(row, key) for row in rows] for key in ("image", "mask", "group")}
    ratios = {"dice": dice(counts.matrix), "iou": iou(counts.matrix)}
    for c, name in enumerate(class_names[1:], start=1):
        for ratio, values in ratios.items():
            columns[f"{ratio}_{name}"] = [round(value, 6) for value in values[:, c].tolist()]
        for count, values in zip(CLASS_COUNTS, class_counts(counts, c).T, strict=True):
            columns[f"{count}_{name}"] = values.tolist()
    return pd.DataFrame(columns, index=counts.row.tolist())


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Writes a table as in RFC 4180: a header, lines that end in CR LF; nan is an empty cell."""
    table.to_csv(path, index=False, lineterminator="\r\n", encoding="utf-8")


def find_table(run: str | Path) -> Path:
    """The per_image.csv of a path: the file, the folder's own, or the newest test's; else ConfigError."""
    path = Path(run)
    tests = [p for p in path.glob("test*/per_image.csv") if re.fullmatch(r"test(-\d+)?", p.parent.name)]
    tests.sort(key=lambda p: (len(p.parent.name), p.parent.name))  # test, test-2, … test-10
    for candidate in (path, path / "per_image.csv", *tests[-1:]):
        if candidate.is_file():
            return candidate
    raise ConfigError(
        f"{path}: expected a run folder with a test, a test folder or a per_image.csv; found none. "
        f"Make it with: nailseg test --config {path}/config.yaml"
    )


def read_table(path: Path) -> ImageTable:
    """Reads a per_image.csv; DataError if it is empty, is something else, or names an image twice."""
    # as text, so that names such as "NA" or "007" do not change
    options = {"dtype": str, "keep_default_na": False, "index_col": False, "encoding_errors": "replace"}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", pd.errors.ParserWarning)  # cells beyond the header are ignored
            rows = pd.read_csv(path, **options).fillna("")
    except pd.errors.EmptyDataError:
        rows = pd.DataFrame()
    except pd.errors.ParserError as error:
        raise DataError(f"{path}: expected a CSV of equally long rows, found: {error} Test again.") from error
    class_names = tuple(column.removeprefix("hits_") for column in rows if column.startswith("hits_"))
    if rows.empty or "image" not in rows or not class_names:
        found = "no row" if rows.empty else list(rows)
        raise DataError(f"{path}: expected columns image, hits_CLASS; found {found}. Test again.")
    if (n_images := rows["image"].nunique()) < len(rows):
        raise DataError(f"{path}: expected each image once, found {len(rows)} rows of {n_images} images.")
    folder = path.absolute().parent
    name = folder.name
    if name in ("test", "val"):  # RUN/test/per_image.csv is named after its run
        name = folder.parent.name
    elif name.startswith("test-"):
        name = f"{folder.parent.name}/{name}"
    return ImageTable(path, name, rows.set_index("image", drop=False), class_names)


def read_counts(table: ImageTable, images: Sequence[str], class_name: str) -> torch.Tensor:
    """The counts of a class, float64 (N, K) as `class_counts`; nan in columns that an older file lacks.

    Raises:
        DataError: a cell is no number, or hits, false alarms or misses are missing.
    """
    columns = [f"{count}_{class_name}" for count in CLASS_COUNTS]
    cells = table.rows.loc[images].reindex(columns=columns)
    try:
        counts = cells.apply(pd.to_numeric).to_numpy(np.float64)
    except ValueError:
        counts = np.full(cells.shape, np.nan)
    if np.isnan(counts[:, :3]).any():  # hits, false alarms, misses
        raise DataError(f"{table.path}: expected numbers in hits_, false_alarms_ and misses_. Test again.")
    return torch.tensor(counts)
