"""The text that `nailseg index` prints."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from nailseg.data.assign import SPLITS
from nailseg.data.manifest import Row
from nailseg.data.pairing import Pairs
from nailseg.errors import shorten_list

MAX_NAMES = 20
"""Most names in one line."""


@dataclass(frozen=True)
class IndexReport:
    """Result of `index_dataset`; `str()` of it is the text for people."""

    csv: Path  # the file written; the first of several folds
    rows: tuple[Row, ...]  # of that file
    pairs: Pairs  # pairs, and files without a partner
    kept_folders: bool = False  # the splits are those of the folders train, valid, test
    notes: tuple[str, ...] = ()  # one line each

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
        return "\n".join([*lines, *self.notes, *list_left_out(self.pairs)])


def list_left_out(pairs: Pairs) -> list[str]:
    """Lists the files that are in no pair, one line for each reason."""
    reasons = {
        "images without a mask": pairs.unpaired_images,
        "masks without an image": pairs.unpaired_masks,
        "ambiguous names": tuple(map(" = ".join, pairs.ambiguous)),
        "names that are not UTF-8": pairs.not_utf8,
    }
    return [
        f"{len(names)} {reason}, left out: {shorten_list(names, MAX_NAMES)}"
        for reason, names in reasons.items()
        if names
    ]
