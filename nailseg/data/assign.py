"""Assigns groups to train, val and test: no group is divided, and the result is the same on every machine.

scikit-learn's StratifiedGroupKFold is not used: it makes folds of equal size only, and one more image changes
the split of many others.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

SPLITS = ("train", "val", "test")
TOLERANCE = 1e-9  # shares are floats: 0.1 of 30 rows must be three rows, not 2.9999


def assign_splits(
    groups: Sequence[str], folders: Sequence[str], val: float, test: float, seed: int = 0
) -> list[str]:
    """Chooses a split for every row.

    The order within a folder comes from the SHA-256 of seed and group name, not from `hash()` or the order of
    files on the disk. Test takes its share from the start of that order, val the next rows: one row more or
    less in the data changes the split of one or two others. The part of a share that a folder cannot give
    exactly is carried over to the next folder. A group belongs to the folder of most of its rows.

    Args:
        groups: of each row; a group lies in one split.
        folders: of each row (or any other strata); each is split in proportion.
        val: share of val, 0 to 1.
        test: share of test, 0 to 1.
        seed: another seed gives another split.

    Returns:
        train, val or test for each row, in the order given.

    Example:
        >>> assign_splits(["a", "a", "b", "c"], ["x"] * 4, val=0.25, test=0.25)
        ['test', 'test', 'train', 'val']
    """
    sizes = Counter(groups)
    home: dict[str, str] = {}  # group -> folder of most of its rows
    counts = Counter(zip(groups, folders, strict=True))
    for group, folder in sorted(counts, key=lambda pair: (-counts[pair], pair[1])):
        home.setdefault(group, folder)
    strata: dict[str, list[str]] = {}
    for group, folder in home.items():
        strata.setdefault(folder, []).append(group)
    missing = {"test": 0.0, "val": 0.0}  # rows that the split still lacks
    assigned: dict[str, str] = {}
    for folder in sorted(strata):
        rows = sum(sizes[group] for group in strata[folder])
        missing["test"] += test * rows
        missing["val"] += val * rows
        for group in sorted(strata[folder], key=lambda group: _rank(seed, group)):
            # a split takes a group if it lacks half of the group's rows: the result is nearer to its share
            need = max(sizes[group] / 2 - TOLERANCE, TOLERANCE)
            split = next((split for split in missing if missing[split] >= need), "train")
            assigned[group] = split
            if split != "train":
                missing[split] -= sizes[group]
    _fill_empty(assigned, sizes, {"test": test, "val": val, "train": 1 - val - test}, seed)
    return [assigned[group] for group in groups]


def assign_folds(
    groups: Sequence[str], strata: Sequence[str], folds: int, test: float, seed: int = 0
) -> list[list[str]]:
    """Chooses the test rows once, and divides the others into `folds` equal parts, as `assign_splits` does.

    Returns:
        A list per fold with train, val or test for each row: in fold k, part k is val.
    """
    part = [folds - 1] * len(groups)
    remaining = list(range(len(groups)))
    for fold in range(-1, folds - 1):  # -1: the test rows
        share = test if fold < 0 else 1 / (folds - fold)
        chosen = assign_splits(
            [groups[row] for row in remaining],
            [strata[row] for row in remaining],
            val=share,
            test=0.0,
            seed=seed * 1000 + fold + 1,  # each part needs its own order of the groups
        )
        for row, split in zip(remaining, chosen, strict=True):
            part[row] = fold if split == "val" else part[row]
        remaining = [row for row, split in zip(remaining, chosen, strict=True) if split != "val"]
    return [
        ["test" if own < 0 else "val" if own == fold else "train" for own in part] for fold in range(folds)
    ]


def _fill_empty(assigned: dict[str, str], sizes: dict[str, int], shares: dict[str, float], seed: int) -> None:
    """Moves the smallest group into each empty split with a share, from a split of two or more groups."""
    for split, share in shares.items():
        if share <= TOLERANCE or split in assigned.values():
            continue
        counts = Counter(assigned.values())
        spare = [group for group, own in assigned.items() if counts[own] > 1]
        if spare:
            assigned[min(spare, key=lambda group: (sizes[group], _rank(seed, group)))] = split


def _rank(seed: int, group: str) -> tuple[bytes, str]:
    return hashlib.sha256(f"{seed}:{group}".encode()).digest(), group
