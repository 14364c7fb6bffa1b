"""Groups of images that no split divides: by file name, folder, CSV column, and near-duplicates."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from nailseg.data.io.images import decode_image, read_bytes
from nailseg.data.io.masks import decode_mask_values
from nailseg.data.issues import IssueError
from nailseg.data.manifest import Row
from nailseg.data.mask_encoding import THRESHOLD
from nailseg.data.splitting.duplicates import DuplicatePair, Signature, compute_signature, find_duplicates
from nailseg.data.splitting.index_report import MAX_NAMES
from nailseg.data.splitting.near_duplicates import label_clusters
from nailseg.data.threads import map_threads
from nailseg.errors import ConfigError, shorten_list

COLUMN = "column:"
"""Prefix of --group values that name a column of the CSV."""
BINS = (0.0, 0.005, 0.02, 0.08, 0.3)
"""Shares of foreground that divide the strata; constants, so that one more image does not move others."""


def find_group(row: Row, group: str | None) -> str:
    """Finds the name of a row's group; `group` is the option of `index_dataset`.

    Raises:
        ConfigError: `group` names a column that the row does not have.
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
    match = re.search(group, stem) if group else None
    if match is None:
        return row.group or stem
    return (match[1] if match.re.groups and match[1] is not None else match[0]) or stem


@dataclass(frozen=True)
class Contents:
    """What the files of a data set show."""

    pairs: Sequence[DuplicatePair] = ()  # duplicates and near-duplicates
    strata: Mapping[str, str] = field(default_factory=dict)  # image -> its folder and bin of foreground
    unreadable: int = 0  # rows of which a file cannot be decoded


def read_contents(root: Path, rows: Sequence[Row], progress: bool) -> Contents:
    """Decodes the files of all rows once; what cannot be read is left to `nailseg check`."""
    found = map_threads(lambda row: _read(root, row), rows, "finding near-duplicates", progress)
    strata = {row.image: f"{row.folder} {size}" for row, (_, size) in zip(rows, found, strict=True)}
    signatures = {row.image: each for row, (each, _) in zip(rows, found, strict=True) if each}
    return Contents(find_duplicates(signatures), strata, len(rows) - len(signatures))


def merge_groups(
    existing: Sequence[Row], new: Sequence[Row], pairs: Sequence[DuplicatePair]
) -> tuple[list[Row], list[str]]:
    """Gives near-duplicates one group, and new rows the split of the existing rows in their group.

    Returns:
        The new rows, without duplicates and without those connected with existing rows of several splits;
        and notes on what was found.
    """
    # the second of two equal files adds nothing, and `nailseg check` would report it as an error
    duplicates = {row.image for row in new} & {pair.second for pair in pairs if pair.exact}
    new = [row for row in new if row.image not in duplicates]
    rows = [*existing, *new]
    position = {row.image: number for number, row in enumerate(rows)}
    linked = [(position[a], position[b]) for a, b, _ in pairs if {a, b} <= position.keys()]
    first: dict[str, int] = {}
    same_group = [(first.setdefault(row.group, number), number) for number, row in enumerate(rows)]
    labels = label_clusters(len(rows), [*linked, *same_group]).tolist()
    members: dict[int, list[Row]] = {}
    for row, label in zip(rows, labels, strict=True):
        members.setdefault(label, []).append(row)
    merged, conflicts = [], []
    for row, label in zip(new, labels[len(existing) :], strict=True):
        anchors = [member for member in members[label] if member.split]
        splits = {anchor.split for anchor in anchors}
        if len(splits) > 1:
            conflicts.append(row.image)
        else:
            group = min(member.group for member in anchors or members[label])
            merged.append(replace(row, group=group, split="".join(splits)))
    clusters = len(set(label_clusters(len(rows), linked)[[one for one, _ in linked]].tolist()))
    images = len({image for pair in pairs for image in pair[:2]})
    removed, ambiguous = (shorten_list(names, MAX_NAMES) for names in (sorted(duplicates), conflicts))
    notes = {
        f"{clusters} clusters of near-duplicates ({images} images), each in one split": clusters,
        f"{len(duplicates)} duplicates (same bytes), left out: {removed}": duplicates,
        f"{len(conflicts)} new rows belong to several splits, left out: {ambiguous}": conflicts,
    }
    return merged, [note for note, found in notes.items() if found]


def _read(root: Path, row: Row) -> tuple[Signature | None, str]:
    """Decodes both files of a row: the signature, None for errors, and the bin of the foreground's share."""
    try:
        data = read_bytes(root / row.image)
        signature = compute_signature(data, decode_image(data, row.image))
        raw, lossy = decode_mask_values(read_bytes(root / (row.mask or "")), row.mask or "")
    except IssueError:
        return None, "unread"
    # classes are not known yet: any value but 0 may be foreground, except for the noise of lossy compression
    share = float((raw > (THRESHOLD if lossy else 0)).mean())
    return signature, str(sum(share > limit for limit in BINS))
