"""Deals groups out to train, val and test: whole, each folder in proportion, the same on every machine."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

SPLITS = ("train", "val", "test")
SLACK = 1e-9
"""Shares are floats: 0.1 * 30 owes three rows, not 2.9999."""


def assign_splits(
    groups: Sequence[str], folders: Sequence[str], val: float, test: float, seed: int = 0
) -> list[str]:
    """Chooses a split for every row.

    The order within a folder comes from SHA-256 of seed and group name: no `hash()`, no order of the disk.
    Test takes its share from the front of that order, val the next: a row more or less in the data moves one
    or two others. What a folder cannot give exactly is carried to the next one. A group counts for the folder
    most of its rows lie in.

    Args:
        groups: of each row; one group never lies in two splits.
        folders: of each row (or any other strata); each is split in proportion.
        val: share of val, 0 to 1.
        test: share of test, 0 to 1.
        seed: another seed, another split.

    Returns:
        train, val or test for each row, in the order given.
    """
    folders_of: dict[str, Counter[str]] = {}
    for group, folder in zip(groups, folders, strict=True):
        folders_of.setdefault(group, Counter())[folder] += 1
    sizes = {group: counts.total() for group, counts in folders_of.items()}
    strata: dict[str, list[str]] = {}
    for group, counts in folders_of.items():
        strata.setdefault(min(counts, key=lambda folder: (-counts[folder], folder)), []).append(group)
    owed = {"test": 0.0, "val": 0.0}
    dealt: dict[str, str] = {}
    for folder in sorted(strata):
        rows = sum(sizes[group] for group in strata[folder])
        owed["test"] += test * rows
        owed["val"] += val * rows
        for group in sorted(strata[folder], key=lambda group: _rank(seed, group)):
            # half a group's rows: taking it leaves the share nearer to what was asked than passing it on
            split = next(
                (s for s in owed if owed[s] + SLACK >= sizes[group] / 2 and owed[s] > SLACK), "train"
            )
            dealt[group] = split
            if split != "train":
                owed[split] -= sizes[group]
    _fill_empty(dealt, sizes, {"test": test, "val": val, "train": 1 - val - test}, seed)
    return [dealt[group] for group in groups]


def assign_folds(
    groups: Sequence[str], strata: Sequence[str], folds: int, test: float, seed: int = 0
) -> list[list[str]]:
    """Chooses test rows once, and deals the others into `folds` equal parts; else as `assign_splits`.

    Returns:
        A list per fold with train, val or test for each row: in fold k, part k is val.
    """
    part = [folds - 1] * len(groups)
    left = list(range(len(groups)))
    for fold in range(-1, folds - 1):
        share = test if fold < 0 else 1 / (folds - fold)
        # every deal has its own seed: the front of one order must not be the front of the next
        taken = assign_splits(
            [groups[n] for n in left], [strata[n] for n in left], share, 0.0, seed * 1000 + fold + 1
        )
        for row, split in zip(left, taken, strict=True):
            part[row] = fold if split == "val" else part[row]
        left = [row for row, split in zip(left, taken, strict=True) if split != "val"]
    return [
        ["test" if own < 0 else "val" if own == fold else "train" for own in part] for fold in range(folds)
    ]


def _fill_empty(dealt: dict[str, str], sizes: dict[str, int], shares: dict[str, float], seed: int) -> None:
    """A split that was asked for gets at least the smallest group, where another split has one to spare."""
    for split, share in shares.items():
        if share <= SLACK or split in dealt.values():
            continue
        counts = Counter(dealt.values())
        spare = [group for group, own in dealt.items() if counts[own] > 1]
        if spare:
            dealt[min(spare, key=lambda group: (sizes[group], _rank(seed, group)))] = split


def _rank(seed: int, group: str) -> tuple[bytes, str]:
    return hashlib.sha256(f"{seed}:{group}".encode()).digest(), group
