"""Assignment of groups to splits and folds."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from nailseg.data.assign import assign_folds, assign_splits


def test_every_folder_is_split_in_proportion() -> None:
    groups = [str(k) for k in range(400)]
    folders = [str(k % 4) for k in range(400)]
    splits = assign_splits(groups, folders, val=0.1, test=0.2)
    for folder in "0123":
        counts = Counter(split for split, own in zip(splits, folders, strict=True) if own == folder)
        assert counts == {"train": 70, "val": 10, "test": 20}


def test_the_order_of_rows_does_not_matter() -> None:
    rows = [(f"g{k // 3}", str(k % 5)) for k in range(200)]
    by_group = dict(zip((g for g, _ in rows), assign_splits(*zip(*rows, strict=True), 0.2, 0.2), strict=True))
    random.Random(1).shuffle(rows)
    assert (
        dict(zip((g for g, _ in rows), assign_splits(*zip(*rows, strict=True), 0.2, 0.2), strict=True))
        == by_group
    )


def test_the_split_is_the_same_on_every_machine() -> None:
    splits = assign_splits([str(k) for k in range(12)], ["x"] * 12, 0.25, 0.25)
    assert " ".join(splits) == "train train train val test train train test val test val train"
    assert splits != assign_splits([str(k) for k in range(12)], ["x"] * 12, 0.25, 0.25, seed=1)


def test_groups_are_not_divided_and_shares_are_close() -> None:
    draw = random.Random(0)
    groups = [f"g{k}" for k in range(60) for _ in range(draw.choice([1, 1, 2, 5, 12]))]
    folders = [draw.choice("abc") for _ in groups]
    splits = assign_splits(groups, folders, 0.15, 0.15)
    assert all(len({s for s, own in zip(splits, groups, strict=True) if own == g}) == 1 for g in set(groups))
    share = {split: count / len(groups) for split, count in Counter(splits).items()}
    assert share["val"] == pytest.approx(0.15, abs=0.04)
    assert share["test"] == pytest.approx(0.15, abs=0.04)


def test_one_more_row_changes_few_others() -> None:
    names = [str(k) for k in range(300)]
    before = dict(zip(names, assign_splits(names, ["x"] * 300, 0.1, 0.1), strict=True))
    after = dict(zip([*names, "new"], assign_splits([*names, "new"], ["x"] * 301, 0.1, 0.1), strict=True))
    assert sum(before[name] != after[name] for name in names) <= 2


@pytest.mark.parametrize(
    ("val", "test", "expected"),
    [
        (0, 0, {"train": 10}),
        (1, 0, {"val": 10}),
        (0, 1, {"test": 10}),
        (0.5, 0.5, {"val": 5, "test": 5}),
        (0.1, 0.1, {"train": 8, "val": 1, "test": 1}),
        (0.01, 0.01, {"train": 8, "val": 1, "test": 1}),
        (0.3, 0.7, {"val": 3, "test": 7}),
    ],
)
def test_shares_from_0_to_1(val: float, test: float, expected: dict[str, int]) -> None:
    assert Counter(assign_splits([str(k) for k in range(10)], ["x"] * 10, val, test)) == expected


def test_shares_are_carried_over_between_small_folders() -> None:
    groups = [str(k) for k in range(60)]
    assert Counter(assign_splits(groups, [str(k // 3) for k in range(60)], 0.1, 0.1)) == {
        "train": 48,
        "val": 6,
        "test": 6,
    }


def test_folds_do_not_divide_groups() -> None:
    groups = [f"g{k // 3}" for k in range(90)]
    for fold in assign_folds(groups, ["x"] * 90, 5, 0.1):
        assert all(
            len({s for s, own in zip(fold, groups, strict=True) if own == g}) == 1 for g in set(groups)
        )
