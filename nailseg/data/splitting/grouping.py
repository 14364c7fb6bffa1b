"""Groups of images that no split divides: by file name, folder, CSV column, and near-duplicates."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from scipy.cluster.hierarchy import DisjointSet

from nailseg.data.io.images import decode_image, read_bytes
from nailseg.data.io.masks import decode_mask_values
from nailseg.data.issues import IssueError
from nailseg.data.manifest import Row
from nailseg.data.mask_encoding import THRESHOLD
from nailseg.data.splitting.near_duplicates import DuplicatePair, compute_signature, find_duplicates
from nailseg.data.threads import map_threads
from nailseg.errors import ConfigError, shorten_list

MAX_CLUSTER = 0.5
"""A larger share of a set in one cluster of near-duplicates leaves too little for the other splits."""
COLUMN = "column:"  # prefix of --group values that name a column of the CSV
# shares of foreground that divide the strata; constants, so that one more image does not move others
BINS = (0.0, 0.005, 0.02, 0.08, 0.3)


def find_group(row: Row, group: str | None) -> str:
    """Finds the name of a row's group; `group` is the option of `index_dataset`."""
    if group == "folder":
        return row.folder
    if group and group.startswith(COLUMN):
        columns = {"group": row.group, **dict(row.extra)}
        if group.removeprefix(COLUMN) not in columns:
            message = f"expected --group {group} to name a column, found {', '.join(sorted(columns))}. "
            raise ConfigError(message + "Index a CSV that has it: nailseg index CSV --out NEW.csv.")
        return columns[group.removeprefix(COLUMN)] or row.image
    stem = PurePosixPath(row.image).with_suffix("").as_posix()
    match = re.search(group, stem) if group else None
    if match is None:
        return row.group or stem
    return (match[1] if match.re.groups and match[1] is not None else match[0]) or stem


def read_contents(root: Path, rows: Sequence[Row]) -> tuple[list[DuplicatePair], dict[str, str], list[str]]:
    """Decodes the files of all rows once; what cannot be read is left to `nailseg check`.

    Returns:
        Duplicates and near-duplicates; image -> stratum (its folder and bin of foreground); and notes.
    """

    def read(row: Row) -> tuple[str, tuple | None]:
        try:
            data = read_bytes(root / row.image)
            signature = compute_signature(data, decode_image(data, row.image).pixels)
            mask = decode_mask_values(read_bytes(root / (row.mask or "")), row.mask or "")
        except IssueError:
            return f"{row.folder} unread", None
        # classes are not known yet: any value but 0 may be foreground, but for the noise of lossy compression
        share = (mask.values > (THRESHOLD if mask.lossy else 0)).mean()
        return f"{row.folder} {sum(share > limit for limit in BINS)}", signature

    found = map_threads(read, rows, "finding near-duplicates")
    strata = {row.image: stratum for row, (stratum, _) in zip(rows, found, strict=True)}
    signatures = {row.image: signature for row, (_, signature) in zip(rows, found, strict=True) if signature}
    unreadable = len(rows) - len(signatures)
    notes = [f"{unreadable} pairs cannot be read; nailseg check lists them"] if unreadable else []
    return find_duplicates(signatures), strata, notes


def merge_groups(
    existing: Sequence[Row], new: Sequence[Row], pairs: Sequence[DuplicatePair]
) -> tuple[list[Row], list[str]]:
    """Gives near-duplicates one group, and new rows the split of the existing rows in their group.

    Returns:
        The new rows, without duplicates and without those connected with existing rows of several splits;
        and notes on what was found.
    """
    # the second of two equal files adds nothing, and `nailseg check` would report it as an error
    duplicates = {row.image for row in new} & {second for _, second, exact in pairs if exact}
    new = [row for row in new if row.image not in duplicates]
    rows = {row.image: row for row in (*existing, *new)}
    links = DisjointSet(rows)
    for one, other, _ in pairs:
        if {one, other} <= rows.keys():
            links.merge(one, other)
    sizes = [len(cluster) for cluster in links.subsets()]
    first: dict[str, str] = {}  # group -> its first image
    for row in rows.values():
        links.merge(row.image, first.setdefault(row.group, row.image))
    linked = {image: cluster for cluster in links.subsets() for image in cluster}
    merged, conflicts = [], []
    for row in new:
        members = [rows[image] for image in linked[row.image]]
        anchors = [member for member in members if member.split] or members
        splits = {anchor.split for anchor in anchors}
        if len(splits) > 1:
            conflicts.append(row.image)
        else:
            group = min(anchor.group for anchor in anchors)
            merged.append(replace(row, group=group, split=splits.pop()))
    clusters, largest = sum(size > 1 for size in sizes), max(sizes, default=0)
    images = len({image for pair in pairs for image in pair[:2]})
    found = f"{clusters} clusters of near-duplicates ({images} images), each in one split"
    notes = [found] if clusters else []
    if largest > MAX_CLUSTER * len(rows) and largest > 2:
        notes.append(
            f"one cluster holds {largest} of {len(rows)} images: they show one scene (one studio, one pose), "
            "and no split can separate them. To split them all the same: --no-near-duplicates, then "
            "--data.allow '[near-duplicate-split]' in training and --allow near-duplicate-split in check; "
            "the test then measures that scene only"
        )
    notes += list_names("duplicates (same bytes), left out", sorted(duplicates))
    return merged, notes + list_names("new rows belong to several splits, left out", conflicts)


def list_names(what: str, names: Sequence[str]) -> list[str]:
    """A line with the number of names and the first 20 of them, if there are any."""
    return [f"{len(names)} {what}: {shorten_list(names, 20)}"] if names else []
