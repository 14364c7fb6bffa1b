"""Statistics of a data set, per split, folder and group; and its fingerprint."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nailseg.data.manifest import Row
from nailseg.data.mask_encoding import UNKNOWN, MaskEncoding
from nailseg.data.mask_inference import count_classes, count_foreground
from nailseg.data.validation.scan import ScanResult

Statistics = dict[str, dict[str, dict[str, Any]]]
MAX_LINES = 20
"""More folders or groups are in the JSON only."""


def compute_foreground_share(scan: ScanResult, encoding: MaskEncoding) -> float:
    """Computes the foreground's share of a mask's pixels with a class, 0..1; nan if there are none."""
    if scan.content is None:
        return float("nan")
    classes = count_classes(scan.content, encoding)
    foreground = count_foreground(classes)
    return foreground / (foreground + classes[0]) if foreground + classes[0] else float("nan")


def count_nails(scan: ScanResult, encoding: MaskEncoding) -> int:
    """Counts the connected components of foreground in a mask."""
    lossy = scan.content is not None and scan.content.lossy
    classes = {value: encoding.class_of(value, lossy) or 0 for value in scan.components}
    return sum(count for value, count in scan.components.items() if 0 < classes[value] < UNKNOWN)


def compute_statistics(scans: Sequence[ScanResult], encoding: MaskEncoding) -> Statistics:
    """Computes statistics of a data set's checked rows, in plain values for JSON.

    Returns:
        `split`, `folder` and `group` (those of two rows or more); in each, per name: `images`; `sizes`,
        images per "width x height"; `foreground`, mean share of the images' areas; `nails`, the mean of an
        image, with `nails_min` and `nails_max`.
    """
    members: dict[str, dict[str, list[ScanResult]]] = {"split": {}, "folder": {}, "group": {}}
    for scan in scans:
        if scan.size is not None and scan.content is not None:
            for kind, groups in members.items():
                groups.setdefault(getattr(scan.row, kind), []).append(scan)
    members["group"] = {name: part for name, part in members["group"].items() if len(part) > 1}
    if len({scan.row.group for scan in scans}) == len(scans):
        del members["group"]
    return {
        kind: {name: _summarize(groups[name], encoding) for name in sorted(groups)}
        for kind, groups in members.items()
    }


def _summarize(scans: Sequence[ScanResult], encoding: MaskEncoding) -> dict[str, Any]:
    sizes = Counter(scan.size for scan in scans if scan.size is not None)
    nails = [count_nails(scan, encoding) for scan in scans]
    shares = np.array([compute_foreground_share(scan, encoding) for scan in scans])
    shares = shares[~np.isnan(shares)]
    return {
        "images": len(scans),
        "sizes": {f"{width} x {height}": count for (height, width), count in sorted(sizes.items())},
        "foreground": round(float(shares.mean()), 6) if len(shares) else None,
        "nails": round(float(np.mean(nails)), 3),
        "nails_min": min(nails),
        "nails_max": max(nails),
    }


def format_statistics(statistics: Statistics) -> str:
    """Formats statistics as aligned lines of text, with the most common size only."""
    lines = [("", "images", "foreground", "nails per image", "sizes")]
    for kind, names in statistics.items():
        for name, row in list(names.items())[:MAX_LINES]:
            common = max(row["sizes"], key=lambda size: (row["sizes"][size], size))
            others = f" and {len(row['sizes']) - 1} others" if len(row["sizes"]) > 1 else ""
            share = "-" if row["foreground"] is None else f"{row['foreground']:.2%}"
            nails = f"{row['nails']:.1f} ({row['nails_min']}-{row['nails_max']})"
            lines.append((f"{kind} {name}", str(row["images"]), share, nails, common + others))
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
