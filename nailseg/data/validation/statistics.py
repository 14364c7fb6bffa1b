"""Statistics of a data set, per split, folder and group; and its fingerprint."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nailseg.data.manifest import Row
from nailseg.data.mask_content import MaskContent, count_classes, count_foreground
from nailseg.data.mask_encoding import MaskEncoding
from nailseg.data.validation.scan import ScanResult

Statistics = dict[str, dict[str, dict[str, Any]]]
MAX_LINES = 20  # more folders or groups are in the JSON only


def tabulate_scans(scans: Sequence[ScanResult], encoding: MaskEncoding) -> pd.DataFrame:
    """Computes a line for each scan.

    Returns:
        `split`, `folder` and `group` of the row; `size`, height and width of the image; `foreground`, its
        share of the mask's pixels with a class, 0..1, nan without any; `objects`, its connected components.
    """
    records = []
    for scan in scans:
        content = scan.content or MaskContent("", {})
        classes = count_classes(content, encoding)
        objects = count_foreground(count_classes(replace(content, counts=scan.components), encoding))
        foreground = count_foreground(classes)
        share = foreground / (foreground + classes[0]) if foreground + classes[0] else np.nan
        records.append((scan.row.split, scan.row.folder, scan.row.group, scan.size, share, objects))
    return pd.DataFrame(records, columns=["split", "folder", "group", "size", "foreground", "objects"])


def compute_statistics(scans: Sequence[ScanResult], encoding: MaskEncoding) -> Statistics:
    """Computes statistics of a data set's checked rows, in plain values for JSON.

    Returns:
        `split`, `folder` and `group` (those of two rows or more); in each, per name: `images`; `sizes`,
        images per "width x height"; `foreground`, mean share of the images' areas; `objects`, the mean of an
        image, with `objects_min` and `objects_max`.
    """
    table = tabulate_scans([scan for scan in scans if scan.size and scan.content], encoding)
    tables = {"split": table, "folder": table}
    if len({scan.row.group for scan in scans}) < len(scans):
        tables["group"] = table[table.duplicated("group", keep=False)]
    return {
        kind: {name: _summarize(part) for name, part in each.groupby(kind)} for kind, each in tables.items()
    }


def _summarize(table: pd.DataFrame) -> dict[str, Any]:
    foreground, objects = table["foreground"], table["objects"]
    return {
        "images": len(table),
        "sizes": {f"{w} x {h}": count for (h, w), count in sorted(Counter(table["size"]).items())},
        "foreground": round(float(foreground.mean()), 6) if foreground.notna().any() else None,
        "objects": round(float(objects.mean()), 3),
        "objects_min": int(objects.min()),
        "objects_max": int(objects.max()),
    }


def format_statistics(statistics: Statistics) -> str:
    """Formats statistics as aligned lines of text, with the most common size only."""
    lines = [("", "images", "foreground", "objects per image", "sizes")]
    for kind, names in statistics.items():
        for name, row in list(names.items())[:MAX_LINES]:
            common = max(row["sizes"], key=lambda size: (row["sizes"][size], size))
            rest = len(row["sizes"]) - 1
            others = f" and {rest} other{'s' * (rest > 1)}" if rest else ""
            share = "-" if row["foreground"] is None else f"{row['foreground']:.2%}"
            objects = f"{row['objects']:.1f} ({row['objects_min']}-{row['objects_max']})"
            lines.append((f"{kind} {name}", str(row["images"]), share, objects, common + others))
        if len(names) > MAX_LINES:
            lines.append((f"{len(names) - MAX_LINES} more {kind}s", "", "", "", ""))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([name.ljust(widths[0]), *map(str.rjust, numbers, widths[1:]), size]).rstrip()
        for name, *numbers, size in lines
    )


def compute_fingerprint(rows: Sequence[Row], root: Path) -> str:
    """Computes 16 hex digits over paths, splits and file sizes, which change when the data set changes."""
    sha = hashlib.sha256()
    for row in sorted(rows, key=lambda row: row.image):
        sizes = [(root / path).stat().st_size for path in (row.image, row.mask)]
        sha.update(f"{row.image}|{row.mask}|{row.split}|{sizes}\n".encode())
    return sha.hexdigest()[:16]
