"""Assigns groups to train, val and test: no group is divided, and the result is the same on every machine.

scikit-learn's StratifiedGroupKFold is not used: it makes folds of equal size only, and one more image changes
the split of many others.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby

SPLITS = ("train", "val", "test")
SPLIT_NAMES = {"training": "train", "valid": "val", "validation": "val", "testing": "test"}
SPLIT_NAMES |= {split: split for split in SPLITS}
DEFAULT_SHARE = 0.1  # of the rows, for val and for test
TOLERANCE = 1e-9  # shares are floats: 0.1 of 30 rows must be three rows, not 2.9999


def find_split(words: Iterable[str]) -> str | None:
    """Finds the split that the first matching folder name or word stands for; a number may follow it.

    Example:
        >>> find_split(["images", "train2017"]), find_split(["Valid"]), find_split(["left"])
        ('train', 'val', None)
    """
    names = [word.lower().rstrip("0123456789") for word in words]
    return next((SPLIT_NAMES[name] for name in names if name in SPLIT_NAMES), None)


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
    rank = {group: (hashlib.sha256(f"{seed}:{group}".encode()).digest(), group) for group in sizes}
    home: dict[str, str] = {}  # group -> folder of most of its rows
    counts = Counter(zip(groups, folders, strict=True))
    for group, folder in sorted(counts, key=lambda pair: (-counts[pair], pair[1])):
        home.setdefault(group, folder)
    missing = {"test": 0.0, "val": 0.0}  # rows that the split still lacks
    assigned: dict[str, str] = {}
    for _, same in groupby(sorted(home, key=lambda group: (home[group], rank[group])), key=home.get):
        members = list(same)
        rows = sum(sizes[group] for group in members)
        missing["test"] += test * rows
        missing["val"] += val * rows
        for group in members:
            # a split takes a group if it lacks half of the group's rows: the result is nearer to its share
            need = max(sizes[group] / 2 - TOLERANCE, TOLERANCE)
            split = next((split for split in missing if missing[split] >= need), "train")
            assigned[group] = split
            if split != "train":
                missing[split] -= sizes[group]
    for split, share in {"test": test, "val": val, "train": 1 - val - test}.items():
        # an empty split gets the smallest group of a split that has several
        held = Counter(assigned.values())
        spare = [group for group, own in assigned.items() if held[own] > 1]
        if share > TOLERANCE and not held[split] and spare:
            assigned[min(spare, key=lambda group: (sizes[group], rank[group]))] = split
    return [assigned[group] for group in groups]


def assign_folds(
    groups: Sequence[str], strata: Sequence[str], folds: int, test: float, seed: int = 0
) -> list[list[str]]:
    """Chooses the test rows once, and divides the others into `folds` equal parts, as `assign_splits` does.

    Returns:
        A list per fold with train, val or test for each row: in fold k, part k is val.
    """
    rest = list(range(len(groups)))
    part = dict.fromkeys(rest, folds - 1)  # of each row; -1: the test rows
    for fold in range(-1, folds - 1):
        share = test if fold < 0 else 1 / (folds - fold)
        own_seed = seed * 1000 + fold + 1  # each part needs its own order of the groups
        own_groups, own_strata = [groups[row] for row in rest], [strata[row] for row in rest]
        chosen = assign_splits(own_groups, own_strata, val=share, test=0.0, seed=own_seed)
        part |= {row: fold for row, split in zip(rest, chosen, strict=True) if split == "val"}
        rest = [row for row, split in zip(rest, chosen, strict=True) if split != "val"]
    return [
        ["test" if own < 0 else "val" if own == fold else "train" for own in part.values()]
        for fold in range(folds)
    ]
