"""Builds the CSV of a data set: pairs images with masks, groups them, and assigns splits or folds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from nailseg.data.assign import SPLITS, assign_folds, assign_splits
from nailseg.data.manifest import (
    Manifest,
    Row,
    find_group_splits,
    load_manifest,
    write_manifest,
)
from nailseg.data.pairing import Pairs, pair_folders
from nailseg.data.splitting.grouping import COLUMN, Contents, find_group, merge_groups, read_contents
from nailseg.data.splitting.index_report import MAX_NAMES, IndexReport, list_left_out
from nailseg.errors import ConfigError, DataError, OutputError, shorten_list

SPLIT_FOLDERS = {"training": "train", "valid": "val", "validation": "val", "testing": "test"}
SPLIT_FOLDERS |= {split: split for split in SPLITS}


@dataclass(frozen=True)
class Target:
    """The input of `index_dataset`, and where its output goes."""

    root: Path  # folder the paths in the CSV are relative to
    outputs: tuple[Path, ...]  # the CSV, or one per fold
    source: Manifest | None  # CSV that lists the pairs; None to search the root
    existing: tuple[Row, ...]  # rows of the existing CSV, which keep their splits
    backup: Path | None  # new name of the existing CSV


def index_dataset(
    root: str | Path,
    *,
    out: str | Path | None = None,
    val: float = 0.1,
    test: float = 0.1,
    group: str | None = None,
    seed: int = 0,
    folds: int | None = None,
    near_duplicates: bool = True,
    progress: bool = True,
) -> IndexReport:
    """Pairs a folder's images with its masks, splits them, and writes the CSV.

    Near-duplicates (mirrored, rotated, re-compressed or slightly cropped copies) form one group and have one
    group name in the CSV. Every folder, and every range of foreground sizes, is split in proportion. If the
    CSV exists, its rows keep their splits; a new row joins the split of its group or near-duplicates, and is
    left out if those lie in several splits; the existing file is renamed to .bak.

    Args:
        root: folder with `Images/` and `Masks/` (any depth below them), or `train|valid|test/{images,masks}`,
            whose splits are kept (a missing one is not filled from the others); or a CSV with pairs.
        out: the CSV, `nails.csv` in the root by default.
        val: share of val, 0 to 1.
        test: share of test, 0 to 1.
        group: images that no split divides: `folder`, the images' folder; `column:NAME`, a column of the CSV
            that `root` is; else a regular expression, searched for in the image's path without its suffix;
            its first group (or the whole match) is the name. An image without a match is its own group.
        seed: another seed gives another split.
        folds: write this many CSVs, NAME-fold1.csv and on. Each has another part as val and the same test
            rows; `val` is ignored.
        near_duplicates: find near-duplicates; decodes every image once.
        progress: show a progress bar on stderr.

    Raises:
        ConfigError: invalid shares, folds, regular expression or column.
        DataError: no pairs, or a CSV that cannot be read.
        OutputError: a CSV of a fold or the .bak file exists, or a file cannot be written.
    """
    _check_options(val, test, group, folds)
    target = _open_target(Path(root), out, folds)
    pairs, rows = _list_new_rows(target)
    rows = [replace(row, group=find_group(row, group)) for row in rows]
    contents = Contents()
    if near_duplicates:
        contents = read_contents(target.root, [*target.existing, *rows], progress)
    rows, notes = merge_groups(target.existing, rows, contents.pairs)
    strata = [contents.strata.get(row.image, row.folder) for row in rows]
    keep_folders = not target.existing and not folds and all(_find_split_folder(row) for row in rows)
    if keep_folders:
        tables = [[replace(row, split=_find_split_folder(row) or "") for row in rows]]
    elif folds:
        assigned = assign_folds([row.group for row in rows], strata, folds, test, seed)
        tables = [[replace(r, split=s) for r, s in zip(rows, splits, strict=True)] for splits in assigned]
    else:
        tables = [[*target.existing, *split_rows(rows, val, test, seed, strata)]]
    _write(target, tables)
    if contents.unreadable:
        notes.append(f"{contents.unreadable} pairs cannot be read; nailseg check lists them")
    shares = {} if keep_folders or target.existing else {"train": 1 - val - test, "val": val, "test": test}
    notes += _describe(target, tables[0], shares)
    return IndexReport(target.outputs[0], tuple(tables[0]), pairs, keep_folders, tuple(notes))


def split_rows(
    rows: Sequence[Row], val: float, test: float, seed: int = 0, strata: Sequence[str] | None = None
) -> list[Row]:
    """Assigns splits as `assign_splits` does, to rows without one; by default, the folders are the strata."""
    strata = strata or [row.folder for row in rows]
    open_rows = [(row.group, stratum) for row, stratum in zip(rows, strata, strict=True) if not row.split]
    splits = iter(assign_splits([g for g, _ in open_rows], [s for _, s in open_rows], val, test, seed))
    return [row if row.split else replace(row, split=next(splits)) for row in rows]


def _check_options(val: float, test: float, group: str | None, folds: int | None) -> None:
    if folds is not None and folds < 2:
        raise ConfigError(f"expected --folds of 2 or more, found {folds}.")
    if not (0 <= val <= 1 and 0 <= test <= 1 and val + test <= 1 + 1e-9):
        found = f"found {val} and {test}"
        raise ConfigError(f"expected --val and --test from 0 to 1 with a sum of at most 1, {found}.")
    try:
        re.compile("" if not group or group.startswith(COLUMN) else group)
    except re.error as error:
        message = f"expected --group to be a regular expression, found {group!r} ({error})."
        raise ConfigError(message) from None


def _open_target(root: Path, out: str | Path | None, folds: int | None) -> Target:
    """Reads the CSVs that exist, and makes sure that no other file would be overwritten."""
    source = load_manifest(root) if root.is_file() else None
    root = source.root if source else root
    out = Path(out) if out is not None else root / "nails.csv"
    outputs = tuple(out.with_name(f"{out.stem}-fold{k + 1}{out.suffix}") for k in range(folds or 0)) or (out,)
    manifest = load_manifest(out, root) if out.exists() and not folds else None
    backup = Path(f"{out}.bak") if manifest else None
    for path in [backup] if backup else outputs:
        if path.exists():
            raise OutputError(
                f"{path}: expected a new file, found an existing one. Move it, or write elsewhere with --out."
            )
    existing = manifest.rows if manifest and manifest.split_given else ()
    return Target(root, outputs, source if existing else source or manifest, existing, backup)


def _list_new_rows(target: Target) -> tuple[Pairs, list[Row]]:
    """Pairs images with masks; files of existing rows are neither new nor without a partner."""
    if target.source:
        rows = [replace(row, split="") for row in target.source.rows if row.mask]
        pairs = Pairs(tuple((row.image, row.mask) for row in rows))
    else:
        pairs = pair_folders(target.root)
        rows = [Row(image, mask, "", "") for image, mask in pairs.pairs]
    if not rows:
        message = (
            f"{target.root}: expected pairs like Images/1/a.jpg with Masks/1/a.png, or train/images/a.jpg "
            "with train/masks/a.png; found none. Name the two folders Images and Masks, and give each mask "
            "its image's name."
        )
        raise DataError("\n".join([message, *list_left_out(pairs)]))
    images = {row.image for row in target.existing}
    masks = {row.mask for row in target.existing}
    pairs = replace(
        pairs,
        unpaired_images=tuple(name for name in pairs.unpaired_images if name not in images),
        unpaired_masks=tuple(name for name in pairs.unpaired_masks if name not in masks),
    )
    return pairs, [row for row in rows if row.image not in images]


def _find_split_folder(row: Row) -> str | None:
    """The split that a folder above the image is named after."""
    folders = (part.lower() for part in PurePosixPath(row.image).parts[:-1])
    return next((SPLIT_FOLDERS[folder] for folder in folders if folder in SPLIT_FOLDERS), None)


def _describe(target: Target, rows: Sequence[Row], shares: dict[str, float]) -> list[str]:
    """Notes on the CSV with these rows; `shares` is empty if folders or existing rows decide the splits."""
    notes = []
    if target.existing:
        kept, new = len(target.existing), len(rows) - len(target.existing)
        notes.append(f"{kept} existing rows kept, {new} new; the previous file is {target.backup.name}")
    files = {row.image: (row.image, row.mask or "") for row in target.existing}
    missing = [name for name, pair in files.items() if not all((target.root / f).is_file() for f in pair)]
    if missing:
        names = shorten_list(missing, MAX_NAMES)
        notes.append(f"{len(missing)} existing rows kept whose image or mask is missing: {names}")
    if len(target.outputs) > 1:
        names = ", ".join(path.name for path in target.outputs)
        notes.append(f"written: {names}; the counts are those of the first")
    if target.outputs[0].resolve().parent != target.root.resolve():
        notes.append(f"paths are relative to {target.root}: give it with --data.root")
    if shares and any(map(_find_split_folder, rows)) and not all(map(_find_split_folder, rows)):
        notes.append("only some images lie in folders train, valid or test: those folders are no splits")
    present = {row.split for row in rows}
    empty = " and ".join(s for s in SPLITS if s not in present and shares.get(s, 1) > 1e-9)
    if empty:
        reason = "too few pairs or groups" if shares else "the folders or the existing rows have none"
        notes.append(f"no rows in {empty}: {reason}")
    divided = sorted(group for group, splits in find_group_splits(rows).items() if len(splits) > 1)
    if divided:
        notes.append(f"{len(divided)} groups lie in several splits: {shorten_list(divided, MAX_NAMES)}")
    return notes


def _write(target: Target, tables: Sequence[Sequence[Row]]) -> None:
    out = target.outputs[0]
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if target.backup:
            out.rename(target.backup)
        for path, rows in zip(target.outputs, tables, strict=True):
            write_manifest(path, rows)
    except OSError as error:
        message = f"{out}: expected to write the CSV, found {error.strerror}. Choose --out."
        raise OutputError(message) from None
