"""Folders -> pairs -> groups and clusters of near twins -> split or folds -> CSV."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from nailseg.data.manifest import Row, load_manifest, write_manifest
from nailseg.data.pairing import Pairs, pair_folders
from nailseg.data.splitting.assign import SPLITS, assign_folds, assign_splits
from nailseg.data.splitting.growing import COLUMN, Looks, group_of, look_over, unite
from nailseg.data.splitting.index_report import SHOWN, IndexReport, split_notes, twin_notes
from nailseg.errors import ConfigError, DataError, OutputError

SPLIT_FOLDERS = {"training": "train", "valid": "val", "validation": "val", "testing": "test"}
SPLIT_FOLDERS |= {split: split for split in SPLITS}


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

    Near twins (see `data.twins`) count as one group, and get one group's name in the CSV. Every folder and
    every size of foreground is split in proportion. Over an existing CSV, old rows keep their split; a new
    row joins the split of its group or twins, and is left out if those lie in several; the old file becomes
    .bak.

    Args:
        root: folder with `Images/` and `Masks/` (any depth below them), or `train|valid|test/{images,masks}`,
            whose splits are kept (and what is missing among them is not made up from the others); or a CSV
            with pairs.
        out: the CSV, `nails.csv` in the root by default.
        val: share of val, 0 to 1.
        test: share of test, 0 to 1.
        group: what must not be divided: `folder`, the images' folder; `column:NAME`, a column of the CSV
            that `root` is; else a regular expression, searched for in the image's path without its ending;
            its first group (or all it matches) is the name. An image it does not match is its own group.
        seed: another seed, another split.
        folds: write so many CSVs, NAME-fold1.csv and on, which any command takes: each has another part as
            val and the same test rows; `val` does not matter.
        near_duplicates: find near-duplicates; decodes every image once.
        progress: show a bar on stderr.

    Raises:
        ConfigError: fractions or a regular expression that make no sense.
        DataError: nothing to pair, or a CSV that cannot be read.
        OutputError: a CSV of a fold exists, or cannot be written.
    """
    root, pattern = Path(root), _check_options(val, test, group, folds)
    given = load_manifest(root) if root.is_file() else None
    root = given.root if given else root
    out = Path(out) if out is not None else root / "nails.csv"
    outs = [out.with_name(f"{out.stem}-fold{k + 1}{out.suffix}") for k in range(folds or 0)] or [out]
    existing = load_manifest(out, root) if out.exists() and not folds else None
    for path in [Path(f"{out}.bak")] if existing else outs:
        if path.exists():
            message = f"{path}: expected a new file, found an old one. Move it away, or write elsewhere with"
            raise OutputError(f"{message} --out.")
    old = existing.rows if existing and existing.split_given else ()
    if not old:
        given = given or existing
    if given:
        found = Pairs(tuple((row.image, row.mask) for row in given.rows if row.mask))
        rows = [replace(row, split="") for row in given.rows if row.mask]
    else:
        found = pair_folders(root)
        rows = [Row(image, mask, "", "") for image, mask in found.pairs]
    if not rows:
        raise _nothing_paired(root, found)
    known, masks = {row.image for row in old}, {row.mask for row in old}
    # rows that stay are not "left out", whatever they lack
    found = replace(
        found,
        images_alone=tuple(name for name in found.images_alone if name not in known),
        masks_alone=tuple(name for name in found.masks_alone if name not in masks),
    )
    torn = [row.image for row in old if not all((root / p).is_file() for p in (row.image, row.mask or ""))]
    new = [replace(row, group=group_of(row, group, pattern)) for row in rows if row.image not in known]
    looks = Looks((), {row.image: row.folder for row in new})
    if near_duplicates:
        looks = look_over(root, [*old, *new], progress)
    # one image under two names: the second teaches nothing, and check would refuse it
    doubled = sorted({row.image for row in new} & set(looks.doubled))
    new = [row for row in new if row.image not in set(doubled)]
    new, refused, twin_clusters = unite(old, new, looks.pairs)
    said = [_split_of_folder(row.image) for row in new]
    kept = all(said) and not old and not folds
    strata = [looks.strata[row.image] for row in new]
    if kept:
        written = [[replace(row, split=split or "") for row, split in zip(new, said, strict=True)]]
    elif folds:
        dealt = assign_folds([row.group for row in new], strata, folds, test, seed)
        written = [[replace(r, split=s) for r, s in zip(new, splits, strict=True)] for splits in dealt]
    else:
        written = [[*old, *split_rows(new, val, test, seed, strata)]]
    notes = twin_notes(looks, twin_clusters, refused, doubled)
    if old:
        notes.append(f"{len(old)} old rows kept as they are, {len(new)} new; before: {out.name}.bak")
    if torn:
        names = ", ".join(torn[:SHOWN])
        notes.append(f"{len(torn)} old rows kept whose image or mask is gone (nailseg check): {names}")
    if folds:
        notes.append(f"written: {', '.join(path.name for path in outs)}; counted is the first")
    _write(outs, written, Path(f"{out}.bak") if existing else None)
    rows = written[0]
    counts = Counter(row.split for row in rows)
    groups = Counter(split for split, _ in {(row.split, row.group) for row in rows})
    shares = dict.fromkeys(SPLITS, 0.0) if old else {"train": 1 - val - test, "val": val, "test": test}
    notes.extend(split_notes(rows, root, out, said if not old else [], shares, pattern))
    return IndexReport(
        outs[0], {s: counts[s] for s in SPLITS}, {s: groups[s] for s in SPLITS}, found, kept, tuple(notes)
    )


def split_rows(
    rows: Sequence[Row], val: float, test: float, seed: int = 0, strata: Sequence[str] | None = None
) -> list[Row]:
    """Gives rows without a split one: groups whole, every stratum in proportion, as `assign_splits` does.

    `val` and `test` are shares, 0 to 1; `strata` stand for each row, the folders of the images by default.
    """
    strata = strata or [row.folder for row in rows]
    waiting = [(row.group, stratum) for row, stratum in zip(rows, strata, strict=True) if not row.split]
    dealt = iter(assign_splits([g for g, _ in waiting], [stratum for _, stratum in waiting], val, test, seed))
    return [row if row.split else replace(row, split=next(dealt)) for row in rows]


def _write(outs: Sequence[Path], written: Sequence[Sequence[Row]], backup: Path | None) -> None:
    try:
        outs[0].parent.mkdir(parents=True, exist_ok=True)
        if backup:
            outs[0].rename(backup)
        for path, rows in zip(outs, written, strict=True):
            write_manifest(path, rows)
    except OSError as error:
        message = f"{outs[0]}: expected to write the CSV, found {error.strerror}. Choose --out."
        raise OutputError(message) from None


def _check_options(val: float, test: float, group: str | None, folds: int | None) -> re.Pattern[str] | None:
    if folds is not None and folds < 2:
        raise ConfigError(f"expected --folds of 2 or more, found {folds}.")
    if not (0 <= val <= 1 and 0 <= test <= 1 and val + test <= 1 + 1e-9):
        found = f"found {val} and {test}"
        raise ConfigError(f"expected --val and --test from 0 to 1 with a sum of at most 1, {found}.")
    try:
        plain = not group or group == "folder" or group.startswith(COLUMN)
        return None if plain else re.compile(group or "")
    except re.error as error:
        message = f"expected --group to be a regular expression, found {group!r} ({error})."
        raise ConfigError(message) from None


def _split_of_folder(image: str) -> str | None:
    folders = (part.lower() for part in PurePosixPath(image).parts[:-1])
    return next((SPLIT_FOLDERS[folder] for folder in folders if folder in SPLIT_FOLDERS), None)


def _nothing_paired(root: Path, found: Pairs) -> DataError:
    some = [*found.images_alone[:2], *found.masks_alone[:2], *(names[0] for names in found.doubled[:2])]
    return DataError(
        f"{root}: expected pairs like Images/1/a.jpg with Masks/1/a.png, or train/images/a.jpg with "
        "train/masks/a.png; "
        f"found {len(found.images_alone)} images and {len(found.masks_alone)} masks without a partner"
        + (f", such as {', '.join(some)}" if some else "")
        + (f", and names that are not UTF-8: {', '.join(found.not_utf8[:SHOWN])}" if found.not_utf8 else "")
        + ". Name the two folders Images and Masks, and give each mask its image's name."
    )
