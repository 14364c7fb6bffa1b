"""Builds the CSV of a data set: pairs images with masks, groups them, and assigns splits or folds."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nailseg.data.assign import DEFAULT_SHARE, SPLITS, TOLERANCE, assign_folds, find_split
from nailseg.data.layouts import LABEL_MAP, read_label_map
from nailseg.data.manifest import (
    DEFAULT_CSV,
    Manifest,
    Row,
    find_group_splits,
    load_manifest,
    split_rows,
    write_manifest,
)
from nailseg.data.pairing import Pairs, pair_folders, suggest_suffix
from nailseg.data.splitting.grouping import COLUMN, find_group, list_names, merge_groups, read_contents
from nailseg.errors import ConfigError, DataError, OutputError


@dataclass(frozen=True)
class IndexReport:
    """Result of `index_dataset`; `str()` gives the text that the command prints."""

    csv: Path  # the file written; the first of several folds
    rows: tuple[Row, ...]  # of that file
    kept_folders: bool  # the splits are those of the folders train, valid, test
    notes: tuple[str, ...]  # one line each

    @property
    def counts(self) -> dict[str, int]:
        """Rows per split."""
        counts = Counter(row.split for row in self.rows)
        return {split: counts[split] for split in SPLITS}

    def __str__(self) -> str:
        groups = Counter(split for split, _ in {(row.split, row.group) for row in self.rows})
        counts = ", ".join(f"{count} {split}" for split, count in self.counts.items())
        source = ", from the folders' names" if self.kept_folders else ""
        lines = [f"{self.csv}: {len(self.rows)} pairs ({counts}{source})"]
        if groups.total() < len(self.rows):
            lines.append("groups: " + ", ".join(f"{groups[split]} {split}" for split in SPLITS))
        return "\n".join([*lines, *self.notes])


def index_dataset(
    root: str | Path,
    /,
    *,
    out: str | Path | None = None,
    val: float | None = None,
    test: float | None = None,
    group: str | None = None,
    seed: int | None = None,
    folds: int | None = None,
    near_duplicates: bool = True,
    images: str | Path | None = None,
    masks: str | Path | None = None,
    mask_suffix: str | None = None,
    resplit: bool = False,
) -> IndexReport:
    """Pairs a folder's images with its masks, splits them, and writes the CSV.

    Near-duplicates (mirrored, rotated, re-compressed or slightly cropped copies) form one group and have one
    group name in the CSV. Every folder, and every range of foreground sizes, is split in proportion. If the
    CSV exists, its rows keep their splits; a new row joins the split of its group or near-duplicates, and is
    left out if those lie in several splits; the existing file is renamed to .bak.

    Args:
        root: Folder with `Images/` and `Masks/` (any depth below them), or `train|valid|test/{images,masks}`,
            whose splits are kept (a missing one is not filled from the others), or in the layout of ADE20K,
            Pascal VOC, CVAT, Cityscapes, Carvana or ISIC, or with `a_mask.png` beside `a.jpg`; or a CSV with
            pairs.
        out: The CSV to write; dataset.csv in the root by default.
        val: Share of the rows for validation, 0 to 1; by default 0.1.
        test: Share of the rows for the test, 0 to 1; by default 0.1.
        group: Images that no split divides: `folder`, the images' folder; `column:NAME`, a column of the CSV
            that `root` is; else a regular expression, searched for in the image's path without its suffix;
            its first group (or the whole match) is the name. An image without a match is its own group.
        seed: Seed of the split; by default 0.
        folds: Write this many CSVs for cross-validation, NAME-fold1.csv and so on. Each has another part of
            the rows as val, and all have the same test rows.
        near_duplicates: Find near-duplicates and keep them in one split; decodes every image once.
        images: Folder of the images, below the root; given with masks.
        masks: Folder of the masks, below the root.
        mask_suffix: End of the masks' names that their images' lack, such as _segmentation.
        resplit: Split anew: ignore the splits of folders named train, valid or test, and of an existing CSV.

    Raises:
        ConfigError: Invalid shares, folds, regular expression or column, or an option without a meaning here.
        DataError: No pairs, or a CSV that cannot be read.
        OutputError: A CSV of a fold or the .bak file exists, or a file cannot be written.
    """
    split_options = {"--val": val, "--test": test, "--seed": seed}
    if folds is not None and val is not None:
        raise ConfigError("--val: has no meaning beside --folds, whose parts are the val rows. Leave it out.")
    val, test = (DEFAULT_SHARE if share is None else share for share in (val, test))
    seed = seed or 0
    _check_options(val, test, group, folds)
    source = load_manifest(root) if Path(root).is_file() else None
    ignored = {"--images": images, "--masks": masks, "--mask-suffix": mask_suffix}
    given = [name for name, value in ignored.items() if value]
    if given and source:
        raise ConfigError(f"{' '.join(given)}: expected a folder as ROOT, found a CSV, which has the pairs.")
    if bool(images) != bool(masks):
        raise ConfigError(f"{given[0]}: expected --images and --masks together, found one. Give both.")
    root = source.root if source else Path(root)
    out = Path(out) if out is not None else root / DEFAULT_CSV
    outputs = [out.with_name(f"{out.stem}-fold{k + 1}{out.suffix}") for k in range(folds or 0)] or [out]
    # three cases: a new CSV; `out` exists and new rows are added to it; or `root` is a CSV that is split
    extended = load_manifest(out, root) if out.exists() and not folds else None
    existing = extended.rows if extended and extended.split_given and not resplit else ()
    if extended and not existing:  # a CSV without splits is split as a whole
        source = source or extended
    for path in [Path(f"{out}.bak")] if extended else outputs:
        if path.exists():
            message = f"{path}: expected a new file, found an existing one. "
            raise OutputError(message + "Move it, or write elsewhere with --out.")
    pairs = pair_folders(root, images, masks, mask_suffix) if source is None else Pairs(())
    rows, left_out = _list_rows(root, pairs, source, existing)
    rows = [replace(row, group=find_group(row, group)) for row in rows]
    duplicates, strata, notes = read_contents(root, [*existing, *rows] if near_duplicates else [])
    rows, group_notes = merge_groups(existing, rows, duplicates)
    strata = [strata.get(row.image, row.folder) for row in rows]
    folders = [None if resplit else find_split(row.folder.split("/")) for row in rows]
    kept_folders = all(folders) and not existing and not folds
    unused = [name for name, value in split_options.items() if value is not None]
    if kept_folders and unused:
        found = "the folders named train, valid or test decide the splits"
        raise ConfigError(f"{unused[0]}: has no meaning where {found}. Leave it out, or add --resplit.")
    if kept_folders:
        assigned = [folders]
    elif folds:
        assigned = assign_folds([row.group for row in rows], strata, folds, test, seed)
    else:
        assigned = [[row.split for row in split_rows(rows, val, test, seed, strata)]]
    tables = [
        (*existing, *(replace(row, split=split) for row, split in zip(rows, splits, strict=True)))
        for splits in assigned
    ]
    _write(outputs, tables)
    shares = {} if kept_folders or existing else {"train": 1 - val - test, "val": val, "test": test}
    notes = [*group_notes, *notes, *_describe(root, outputs, existing, tables[0], shares), *left_out]
    return IndexReport(outputs[0], tables[0], kept_folders, tuple(notes))


def _check_options(val: float, test: float, group: str | None, folds: int | None) -> None:
    if folds is not None and folds < 2:
        raise ConfigError(f"expected --folds of 2 or more, found {folds}.")
    if not (0 <= val <= 1 and 0 <= test <= 1 and val + test <= 1 + TOLERANCE):
        found = f"found {val} and {test}"
        raise ConfigError(f"expected --val and --test from 0 to 1 with a sum of at most 1, {found}.")
    try:
        re.compile("" if not group or group.startswith(COLUMN) else group)
    except re.error as error:
        found = f"found {group!r} ({error})"
        raise ConfigError(f"expected --group to be a regular expression, {found}.") from None


def _list_rows(
    root: Path, pairs: Pairs, source: Manifest | None, existing: Sequence[Row]
) -> tuple[list[Row], list[str]]:
    """Rows of `source`, or pairs in the folder, that are not existing rows; and notes on files left out."""
    rows = [Row(image, mask, "", "") for image, mask in pairs.pairs]
    rows += [replace(row, split="") for row in source.rows if row.mask] if source else []
    # files of existing rows are neither new nor without a partner
    images, masks = {row.image for row in existing}, {row.mask for row in existing}
    reasons = {
        "images without a mask": [name for name in pairs.unpaired_images if name not in images],
        "masks without an image": [name for name in pairs.unpaired_masks if name not in masks],
        "ambiguous names": [" = ".join(names) for names in pairs.ambiguous],
        "names that are not UTF-8": pairs.not_utf8,
    }
    notes = [f"layout: {pairs.layout}"] if pairs.pairs else []
    notes += [note for reason, names in reasons.items() for note in list_names(f"{reason}, left out", names)]
    if reasons["images without a mask"] and (nearest := suggest_suffix(pairs)):
        notes.append(nearest)
    if label_map := read_label_map(root):
        notes.append(f"{LABEL_MAP}, to train: {label_map}")
    if not rows:
        pair, other = "Images/1/a.jpg with Masks/1/a.png", "train/images/a.jpg with train/masks/a.png"
        fix = "Give the folders, --images DIR --masks DIR, and what the masks' names add, --mask-suffix."
        message = f"{root}: expected pairs like {pair}, or {other}; found none. {fix}"
        raise DataError("\n".join([message, *notes]))
    return [row for row in rows if row.image not in images], notes


def _describe(
    root: Path, outputs: list[Path], existing: Sequence[Row], rows: Sequence[Row], shares: dict[str, float]
) -> list[str]:
    """Notes on a CSV with these rows; `shares` is empty if folders or existing rows decide the splits."""
    notes = []
    names = ", ".join(path.name for path in outputs)
    if existing:
        new = len(rows) - len(existing)
        notes.append(f"{len(existing)} existing rows kept, {new} new; the previous file is {names}.bak")
    files = {row.image: (root / row.image, root / (row.mask or "")) for row in existing}
    missing = [image for image, paths in files.items() if not all(path.is_file() for path in paths)]
    notes += list_names("existing rows kept whose image or mask is missing", missing)
    if len(outputs) > 1:
        notes.append(f"written: {names}; the counts are those of the first")
    if outputs[0].resolve().parent != root.resolve():
        notes.append(f"paths are relative to {root}: give it with --data.root")
    if shares and 0 < sum(find_split(row.folder.split("/")) is not None for row in rows) < len(rows):
        notes.append("only some images lie in folders train, valid or test: those folders are no splits")
    present = {row.split for row in rows}
    empty = " and ".join(s for s in SPLITS if s not in present and shares.get(s, 1) > TOLERANCE)
    if empty:
        reason = "too few pairs or groups" if shares else "the folders or the existing rows have none"
        notes.append(f"no rows in {empty}: {reason}{'' if shares else '; --resplit splits all rows anew'}")
    divided = sorted(group for group, splits in find_group_splits(rows).items() if len(splits) > 1)
    return notes + list_names("groups lie in several splits", divided)


def _write(outputs: Sequence[Path], tables: Sequence[Sequence[Row]]) -> None:
    """Writes a CSV for each table; an existing file gets the ending .bak."""
    try:
        outputs[0].parent.mkdir(parents=True, exist_ok=True)
        for path, rows in zip(outputs, tables, strict=True):
            if path.exists():
                path.rename(f"{path}.bak")
            write_manifest(path, rows)
    except OSError as error:
        message = f"{outputs[0]}: expected to write the CSV, found {error.strerror}. Choose --out."
        raise OutputError(message) from None
