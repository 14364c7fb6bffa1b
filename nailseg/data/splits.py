"""Folders -> pairs -> split -> CSV."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from nailseg.data.dealing import SPLITS, deal
from nailseg.data.manifest import Row, write_manifest
from nailseg.data.pairing import Pairs, pair_folders
from nailseg.errors import ConfigError, DataError, OutputError

SPLIT_FOLDERS = {
    "train": "train",
    "training": "train",
    "valid": "val",
    "val": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
SHOWN = 20


@dataclass(frozen=True)
class IndexReport:
    """What `index_folder` did; `str()` of it is for people.

    Attributes:
        csv: the file written.
        counts: rows per split.
        groups: groups per split.
        found: pairs and what found no partner.
        kept_folders: the splits were taken from folders train, valid, test.
        notes: what a person should know.
    """

    csv: Path
    counts: dict[str, int]
    groups: dict[str, int]
    found: Pairs
    kept_folders: bool = False
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        counts = ", ".join(f"{self.counts[split]} {split}" for split in SPLITS)
        source = ", as the folders say" if self.kept_folders else ""
        lines = [f"{self.csv}: {sum(self.counts.values())} pairs ({counts}{source})"]
        if sum(self.groups.values()) < sum(self.counts.values()):
            lines.append(
                "groups, kept whole: " + ", ".join(f"{self.groups[split]} {split}" for split in SPLITS)
            )
        lines.extend(self.notes)
        for title, names in (
            ("without a mask, left out", self.found.images_alone),
            ("masks without an image, left out", self.found.masks_alone),
            ("names that stand for several files, left out", tuple(map(" = ".join, self.found.doubled))),
        ):
            if names:
                more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
                lines.append(f"{len(names)} {title}: {', '.join(names[:SHOWN])}{more}")
        return "\n".join(lines)


def index_folder(
    root: str | Path,
    out: str | Path | None = None,
    val: float = 0.1,
    test: float = 0.1,
    group: str | None = None,
    seed: int = 0,
) -> IndexReport:
    """Pairs a folder's images with its masks, splits them, and writes the CSV.

    Args:
        root: folder with `Images/` and `Masks/` (any depth below them), or `train|valid|test/{images,masks}`,
            whose splits are kept (and what is missing among them is not made up from the others).
        out: the CSV, `nails.csv` in the root by default; never overwritten.
        val: share of val, 0 to 1.
        test: share of test, 0 to 1.
        group: regular expression, searched for in the image's path without its ending; its first group (or
            all it matches) names what must not be divided. An image it does not match is its own group.
        seed: another seed, another split.

    Raises:
        ConfigError: fractions or a regular expression that make no sense.
        DataError: nothing to pair.
        OutputError: the CSV exists, or cannot be written.
    """
    root = Path(root)
    out = Path(out) if out is not None else root / "nails.csv"
    pattern = _check_options(val, test, group)
    if out.exists():
        raise OutputError(
            f"{out}: expected a new file, found an old one. Move it away, or write elsewhere with --out."
        )
    found = pair_folders(root)
    if not found.pairs:
        raise _nothing_paired(root, found)
    rows = [Row(image, mask, "", _group(image, pattern)) for image, mask in found.pairs]
    said = [_split_of_folder(row.image) for row in rows]
    kept = all(said)
    if kept:
        rows = [replace(row, split=split or "") for row, split in zip(rows, said, strict=True)]
    else:
        rows = split_rows(rows, val, test, seed)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_manifest(out, rows)
    except OSError as error:
        raise OutputError(
            f"{out}: expected to write the CSV, found {error.strerror}. Choose --out."
        ) from None
    counts = Counter(row.split for row in rows)
    groups = Counter(split for split, _ in {(row.split, row.group) for row in rows})
    return IndexReport(
        out,
        {s: counts[s] for s in SPLITS},
        {s: groups[s] for s in SPLITS},
        found,
        kept,
        _notes(rows, root, out, said, {"train": 1 - val - test, "val": val, "test": test}, pattern),
    )


def split_rows(rows: Sequence[Row], val: float, test: float, seed: int = 0) -> list[Row]:
    """Gives rows a split: groups whole, every folder of images in proportion, as `dealing.deal` says."""
    folders = [str(PurePosixPath(row.image).parent) for row in rows]
    splits = deal([row.group for row in rows], folders, val, test, seed)
    return [replace(row, split=split) for row, split in zip(rows, splits, strict=True)]


def _check_options(val: float, test: float, group: str | None) -> re.Pattern[str] | None:
    if not (0 <= val <= 1 and 0 <= test <= 1 and val + test <= 1 + 1e-9):
        raise ConfigError(
            f"expected --val and --test from 0 to 1 with a sum of at most 1, found {val} and {test}."
        )
    try:
        return re.compile(group) if group else None
    except re.error as error:
        raise ConfigError(
            f"expected --group to be a regular expression, found {group!r} ({error})."
        ) from None


def _group(image: str, pattern: re.Pattern[str] | None) -> str:
    stem = PurePosixPath(image).with_suffix("").as_posix()
    match = pattern.search(stem) if pattern else None
    if match is None:
        return stem
    return (match.group(1) if match.re.groups and match.group(1) is not None else match.group(0)) or stem


def _split_of_folder(image: str) -> str | None:
    folders = PurePosixPath(image).parts[:-1]
    return next((SPLIT_FOLDERS[part.lower()] for part in folders if part.lower() in SPLIT_FOLDERS), None)


def _notes(
    rows: Sequence[Row],
    root: Path,
    out: Path,
    said: Sequence[str | None],
    shares: dict[str, float],
    pattern: re.Pattern[str] | None,
) -> tuple[str, ...]:
    notes = []
    if out.resolve().parent != root.resolve():
        notes.append(f"paths are relative to {root}: give it with --data.root")
    if any(said) and not all(said):
        notes.append(
            "only some images lie in folders train, valid or test: those folders were not kept as splits"
        )
    present = {row.split for row in rows}
    if all(said):
        lacking = [split for split in SPLITS if split not in present]
        if lacking:
            notes.append(f"no folder for {' and '.join(lacking)}: its rows have to come from elsewhere")
        splits_of: dict[str, set[str]] = {}
        for row in rows:
            splits_of.setdefault(row.group, set()).add(row.split)
        crossing = sorted(group for group, splits in splits_of.items() if len(splits) > 1)
        if crossing:
            notes.append(
                f"{len(crossing)} groups lie in several of the folders' splits: {', '.join(crossing[:SHOWN])}"
            )
    else:
        notes.extend(
            f"{split} got nothing: too few {'groups' if pattern else 'pairs'}"
            for split in SPLITS
            if shares[split] > 1e-9 and split not in present
        )
    return tuple(notes)


def _nothing_paired(root: Path, found: Pairs) -> DataError:
    some = [*found.images_alone[:2], *found.masks_alone[:2], *(names[0] for names in found.doubled[:2])]
    return DataError(
        f"{root}: expected pairs like Images/1/a.jpg with Masks/1/a.png, or train/images/a.jpg with "
        "train/masks/a.png; "
        f"found {len(found.images_alone)} images and {len(found.masks_alone)} masks without a partner"
        + (f", such as {', '.join(some)}" if some else "")
        + ". Name the two folders Images and Masks, and give each mask its image's name."
    )
