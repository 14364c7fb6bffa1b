"""What `nailseg index` learns from the files, and how new rows join those of an older CSV."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from nailseg.data.faults import FaultError
from nailseg.data.looking import in_threads
from nailseg.data.manifest import Row, folder_of
from nailseg.data.mask_values import THRESHOLD
from nailseg.data.reading import decode_image, decode_mask_values, read_bytes
from nailseg.data.twins import clusters, find_twins, thumbnail
from nailseg.errors import ConfigError

COLUMN = "column:"
"""Marks --group values that name a column."""
BINS = (0.0, 0.005, 0.02, 0.08, 0.3)
"""Shares of foreground that divide the strata; fixed, so that one picture more moves no other."""


@dataclass(frozen=True)
class Looks:
    """What the files show.

    Attributes:
        pairs: images that are near twins.
        strata: folder and size of foreground, per image.
        unread: images of which a file could not be read.
        doubled: images of the same bytes as an earlier one.
    """

    pairs: tuple[tuple[str, str], ...]
    strata: dict[str, str]
    unread: tuple[str, ...] = ()
    doubled: tuple[str, ...] = ()


def look_over(root: Path, rows: Sequence[Row], progress: bool) -> Looks:
    """Decodes every pair once; what cannot be read is left to `nailseg check`.

    Args:
        root: data root.
        rows: all rows.
        progress: show a bar on stderr.
    """

    def look(row: Row) -> tuple[np.ndarray | None, str, bytes]:
        try:
            data = read_bytes(root / row.image)
            small = thumbnail(decode_image(data, row.image))
            raw, lossy = decode_mask_values(read_bytes(root / (row.mask or "")), row.mask or "")
        except FaultError:
            return None, "unread", row.image.encode()
        # classes are not known here: whatever is not 0 may be foreground, compression noise is not
        share = float((raw > (THRESHOLD if lossy else 0)).mean())
        return (
            small,
            str(sum(share > limit for limit in BINS)),
            hashlib.blake2b(data, digest_size=16).digest(),
        )

    seen = list(in_threads(look, rows, "looking for near twins", progress, None))
    shown = [(row.image, small) for row, (small, *_) in zip(rows, seen, strict=True) if small is not None]
    first: dict[bytes, str] = {}
    originals = [first.setdefault(digest, row.image) for row, (*_, digest) in zip(rows, seen, strict=True)]
    pairs = find_twins(np.stack([small for _, small in shown])).tolist() if len(shown) > 1 else []
    return Looks(
        tuple((shown[one][0], shown[other][0]) for one, other in pairs),
        {row.image: f"{folder_of(row)} {size}" for row, (_, size, _) in zip(rows, seen, strict=True)},
        tuple(row.image for row, (small, *_) in zip(rows, seen, strict=True) if small is None),
        tuple(row.image for row, image in zip(rows, originals, strict=True) if row.image != image),
    )


def group_of(row: Row, group: str | None, pattern: re.Pattern[str] | None) -> str:
    """The name of what must not be divided; see `splits.index_folder`.

    Args:
        row: the row; its own group is kept where nothing else is said.
        group: `folder`, `column:NAME`, or the regular expression that `pattern` is.
        pattern: compiled.

    Raises:
        ConfigError: no such column.
    """
    if group == "folder":
        return folder_of(row)
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
    """Gives twins one group, and new rows the split of the old rows they belong with.

    Args:
        old: rows whose split and group stay.
        new: rows without a split.
        pairs: images that are near twins.

    Returns:
        New rows, with a split where an old row decides it; new rows that old rows of several splits claim;
        and the number of clusters of two or more images.
    """
    rows = [*old, *new]
    place = {row.image: number for number, row in enumerate(rows)}
    twins = [(place[one], place[other]) for one, other in pairs if one in place and other in place]
    first: dict[str, int] = {}
    same_group = [(first.setdefault(row.group, number), number) for number, row in enumerate(rows)]
    root_of = clusters(len(rows), np.array([*twins, *same_group], np.int64).reshape(-1, 2))
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
    sizes = np.bincount(clusters(len(rows), np.array(twins, np.int64).reshape(-1, 2)), minlength=1)
    return united, refused, int((sizes > 1).sum())
