"""What `nailseg index` did, in words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nailseg.data.manifest import Row, find_group_splits
from nailseg.data.pairing import Pairs
from nailseg.data.splitting.assign import SPLITS
from nailseg.data.splitting.growing import Looks

SHOWN = 20
"""Most names in one line."""


@dataclass(frozen=True)
class IndexReport:
    """What `index_dataset` did; `str()` of it is for people."""

    csv: Path  # the file written
    counts: dict[str, int]  # rows per split
    groups: dict[str, int]  # groups per split
    found: Pairs  # pairs and what found no partner
    kept_folders: bool = False  # the splits were taken from folders train, valid, test
    notes: tuple[str, ...] = ()  # what a person should know

    def __str__(self) -> str:
        counts = ", ".join(f"{self.counts[split]} {split}" for split in SPLITS)
        source = ", as the folders say" if self.kept_folders else ""
        lines = [f"{self.csv}: {sum(self.counts.values())} pairs ({counts}{source})"]
        if sum(self.groups.values()) < sum(self.counts.values()):
            groups = ", ".join(f"{self.groups[split]} {split}" for split in SPLITS)
            lines.append(f"groups, kept whole: {groups}")
        lines.extend(self.notes)
        for title, names in (
            ("without a mask, left out", self.found.images_alone),
            ("masks without an image, left out", self.found.masks_alone),
            ("names that stand for several files, left out", tuple(map(" = ".join, self.found.doubled))),
            ("names that are not UTF-8, left out", self.found.not_utf8),
        ):
            if names:
                more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
                lines.append(f"{len(names)} {title}: {', '.join(names[:SHOWN])}{more}")
        return "\n".join(lines)


def twin_notes(looks: Looks, count: int, refused: Sequence[Row], doubled: Sequence[str]) -> list[str]:
    """What was found by looking: clusters, rows that tie two splits together, and files that do not open."""
    notes = []
    if count:
        images = len({image for pair in looks.pairs for image in pair})
        notes.append(f"{count} clusters of near twins ({images} images), kept whole")
    if doubled:
        names = ", ".join(doubled[:SHOWN]) + (" …" if len(doubled) > SHOWN else "")
        notes.append(f"{len(doubled)} new images equal another one byte for byte, left out: {names}")
    if refused:
        names = ", ".join(row.image for row in refused[:SHOWN])
        notes.append(f"{len(refused)} new rows tie two splits together, left out: {names}")
    if looks.unread:
        notes.append(f"{len(looks.unread)} pairs cannot be read; nailseg check says why")
    return notes


def split_notes(
    rows: Sequence[Row],
    root: Path,
    out: Path,
    said: Sequence[str | None],
    shares: dict[str, float],
    pattern: re.Pattern[str] | None,
) -> tuple[str, ...]:
    """What a person should know of the split."""
    notes = []
    if out.resolve().parent != root.resolve():
        notes.append(f"paths are relative to {root}: give it with --data.root")
    if any(said) and not all(said):
        some = "only some images lie in folders train, valid or test"
        notes.append(f"{some}: those folders were not kept as splits")
    present = {row.split for row in rows}
    if all(said):
        lacking = [split for split in SPLITS if split not in present]
        if lacking:
            notes.append(f"no folder for {' and '.join(lacking)}: its rows have to come from elsewhere")
        crossing = sorted(group for group, splits in find_group_splits(rows).items() if len(splits) > 1)
        if crossing:
            names = ", ".join(crossing[:SHOWN])
            notes.append(f"{len(crossing)} groups lie in several of the folders' splits: {names}")
    else:
        notes.extend(
            f"{split} got nothing: too few {'groups' if pattern else 'pairs'}"
            for split in SPLITS
            if shares[split] > 1e-9 and split not in present
        )
    return tuple(notes)
