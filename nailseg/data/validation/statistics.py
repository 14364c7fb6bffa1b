"""What a data set is made of, in numbers: per split, folder and group."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nailseg.data.manifest import Row
from nailseg.data.mask_encoding import MaskEncoding
from nailseg.data.mask_inference import count_classes, count_foreground
from nailseg.data.validation.scan import ScanResult

LINES = 20
"""More folders or groups are in the JSON only."""


def foreground_share(finding: ScanResult, values: MaskEncoding) -> float:
    """Share of a mask's counted pixels that are not background, 0..1; nan where no pixel counts."""
    if finding.content is None:
        return float("nan")
    by_class = count_classes(finding.content, values)
    foreground = count_foreground(by_class)
    return foreground / (foreground + by_class[0]) if foreground + by_class[0] else float("nan")


def count_nails(finding: ScanResult, values: MaskEncoding) -> int:
    """Connected components of foreground in a mask."""
    lossy = finding.content is not None and finding.content.lossy
    return sum(
        parts for value, parts in finding.parts.items() if 0 < (values.class_of(value, lossy) or 0) < 254
    )


def fingerprint(findings: Sequence[ScanResult], values: MaskEncoding) -> dict[str, dict[str, dict[str, Any]]]:
    """Numbers of a set's checked rows in plain values, for JSON.

    Returns:
        `split`, `folder` and `group` (those of two rows or more); in each, per name: `images`; `sizes`,
        images per "width x height"; `foreground`, mean share of the images' areas; `nails`, an image's
        mean, with `nails_min` and `nails_max`.
    """
    members: dict[str, dict[str, list[ScanResult]]] = {"split": {}, "folder": {}, "group": {}}
    for finding in findings:
        if finding.size is not None and finding.content is not None:
            row = finding.row
            for kind, name in zip(members, (row.split, row.folder, row.group), strict=True):
                members[kind].setdefault(name, []).append(finding)
    if len({finding.row.group for finding in findings}) == len(findings):
        del members["group"]
    return {
        kind: {name: _describe(n[name], values) for name in sorted(n) if kind != "group" or len(n[name]) > 1}
        for kind, n in members.items()
    }


def _describe(findings: Sequence[ScanResult], values: MaskEncoding) -> dict[str, Any]:
    sizes = Counter(finding.size for finding in findings if finding.size is not None)
    nails = [count_nails(finding, values) for finding in findings]
    shares = [foreground_share(finding, values) for finding in findings]
    counted = [share for share in shares if not np.isnan(share)]
    return {
        "images": len(findings),
        "sizes": {f"{width} x {height}": n for (height, width), n in sorted(sizes.items())},
        "foreground": round(float(np.mean(counted)), 6) if counted else None,
        "nails": round(float(np.mean(nails)), 3),
        "nails_min": min(nails),
        "nails_max": max(nails),
    }


def as_table(told: dict[str, dict[str, dict[str, Any]]]) -> str:
    """The fingerprint for people, with the sizes reduced to the commonest."""
    lines = [("", "images", "foreground", "nails per image", "sizes")]
    for kind, names in told.items():
        for name, row in list(names.items())[:LINES]:
            common = max(row["sizes"], key=lambda size: (row["sizes"][size], size))
            others = f" and {len(row['sizes']) - 1} others" if len(row["sizes"]) > 1 else ""
            share = "-" if row["foreground"] is None else f"{row['foreground']:.2%}"
            nails = f"{row['nails']:.1f} ({row['nails_min']}-{row['nails_max']})"
            lines.append((f"{kind} {name}", str(row["images"]), share, nails, common + others))
        if len(names) > LINES:
            lines.append((f"{len(names) - LINES} more {kind}s", "", "", "", ""))
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    return "\n".join(
        f"{a:<{widths[0]}}  {b:>{widths[1]}}  {c:>{widths[2]}}  {d:>{widths[3]}}  {e}".rstrip()
        for a, b, c, d, e in lines
    )


def digest(rows: Sequence[Row], root: Path) -> str:
    """16 hex digits over paths, split and file sizes of rows whose files exist: another set has others."""
    sha = hashlib.sha256()
    for row in sorted(rows, key=lambda row: row.image):
        sizes = [(root / path).stat().st_size for path in (row.image, row.mask)]
        sha.update(f"{row.image}|{row.mask}|{row.split}|{sizes}\n".encode())
    return sha.hexdigest()[:16]
