"""What `nailseg index` learns from the files, and how new rows join those of an older CSV."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from nailseg.data.io.images import decode_image, decode_mask_values, read_bytes
from nailseg.data.issues import IssueError
from nailseg.data.manifest import Row
from nailseg.data.mask_encoding import THRESHOLD
from nailseg.data.splitting.near_duplicates import label_clusters, make_thumbnail
from nailseg.data.validation.rules import find_pairs
from nailseg.data.validation.scan import ScanResult, in_threads
from nailseg.errors import ConfigError

COLUMN = "column:"
"""Marks --group values that name a column."""
BINS = (0.0, 0.005, 0.02, 0.08, 0.3)
"""Shares of foreground that divide the strata; fixed, so that one image more moves no other."""


@dataclass(frozen=True)
class Looks:
    """What the files show."""

    pairs: tuple[tuple[str, str], ...]  # images that are near twins
    strata: dict[str, str]  # folder and size of foreground, per image
    unread: tuple[str, ...] = ()  # images of which a file could not be read
    doubled: tuple[str, ...] = ()  # images of the same bytes as an earlier one


def look_over(root: Path, rows: Sequence[Row], progress: bool) -> Looks:
    """Decodes every pair once; what cannot be read is left to `nailseg check`."""

    def look(row: Row) -> tuple[ScanResult, str]:
        try:
            data = read_bytes(root / row.image)
            small = make_thumbnail(decode_image(data, row.image))
            raw, lossy = decode_mask_values(read_bytes(root / (row.mask or "")), row.mask or "")
        except IssueError:
            return ScanResult(row), "unread"
        # classes are not known here: whatever is not 0 may be foreground, compression noise is not
        share = float((raw > (THRESHOLD if lossy else 0)).mean())
        digest = hashlib.blake2b(data, digest_size=16).digest()
        return ScanResult(row, thumbnail=small, digest=digest), str(sum(share > limit for limit in BINS))

    seen = list(in_threads(look, rows, "looking for near twins", progress, None))
    pairs = find_pairs([finding for finding, _ in seen])
    return Looks(
        tuple((one, other) for _, one, other in pairs),
        {finding.row.image: f"{finding.row.folder} {size}" for finding, size in seen},
        tuple(finding.row.image for finding, _ in seen if finding.digest is None),
        tuple(other for code, _, other in pairs if code == "duplicate-split"),
    )


def group_of(row: Row, group: str | None, pattern: re.Pattern[str] | None) -> str:
    """The name of what must not be divided, as `splits.index_dataset` says; `pattern` is `group` compiled.

    Raises:
        ConfigError: no such column.
    """
    if group == "folder":
        return row.folder
    if group and group.startswith(COLUMN):
        columns = {"group": row.group, **dict(row.extra)}
        if group.removeprefix(COLUMN) not in columns:
            raise ConfigError(
                f"expected --group {group} to name a column, found {', '.join(sorted(columns))}. "
                "Index a CSV that has it: nailseg index CSV --out NEW.csv."
            )
        return columns[group.removeprefix(COLUMN)] or row.image
    stem = PurePosixPath(row.image).with_suffix("").as_posix()
    match = pattern.search(stem) if pattern else None
    if match is None:
        return row.group or stem
    return (match.group(1) if match.re.groups and match.group(1) is not None else match.group(0)) or stem


def unite(
    old: Sequence[Row], new: Sequence[Row], pairs: Sequence[tuple[str, str]]
) -> tuple[list[Row], list[Row], int]:
    """Gives twins (`pairs` of images) one group, and new rows the split of the old rows they belong with.

    Returns:
        New rows, with a split where an old row decides it; new rows that old rows of several splits claim;
        and the number of clusters of two or more images.
    """
    rows = [*old, *new]
    place = {row.image: number for number, row in enumerate(rows)}
    twins = [(place[one], place[other]) for one, other in pairs if one in place and other in place]
    first: dict[str, int] = {}
    same_group = [(first.setdefault(row.group, number), number) for number, row in enumerate(rows)]
    root_of = label_clusters(len(rows), np.array([*twins, *same_group], np.int64).reshape(-1, 2))
    members: dict[int, list[Row]] = {}
    for row, root in zip(rows, root_of.tolist(), strict=True):
        members.setdefault(root, []).append(row)
    known = {row.image for row in old}
    united, refused = [], []
    for row, root in zip(new, root_of[len(old) :].tolist(), strict=True):
        leading = [each for each in members[root] if each.image in known]
        splits = {each.split for each in leading}
        if len(splits) > 1:
            refused.append(row)
            continue
        group = min(each.group for each in leading or members[root])
        united.append(replace(row, group=group, split=splits.pop() if splits else ""))
    sizes = np.bincount(label_clusters(len(rows), np.array(twins, np.int64).reshape(-1, 2)), minlength=1)
    return united, refused, int((sizes > 1).sum())
