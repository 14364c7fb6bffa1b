"""Folders -> pairs -> split -> CSV."""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path

import pytest

from nailseg.data.manifest import load_manifest
from nailseg.data.pairing import pair_folders
from nailseg.data.splitting.assign import assign_splits
from nailseg.data.splitting.index import index_dataset
from nailseg.errors import ConfigError, DataError


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def fill(root: Path, *folders: str, count: int = 10) -> None:
    for folder in folders:
        touch(
            root,
            *(f"Images/{folder}/{k}.jpg" for k in range(count)),
            *(f"Masks/{folder}/{k}.png" for k in range(count)),
        )


# pairing


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("Images/1/a.JPG", "Masks/1/a.png"),
        ("Images/a.jpeg", "Masks/a.PNG"),
        ("images/a.webp", "masks/a.bmp"),
        ("IMAGES/x/y/a.tif", "MASKS/x/y/a.tiff"),
        ("train/images/a.jpg", "train/masks/a.png"),
        ("Images/1/a.b.c.jpg", "Masks/1/a.b.c.png"),
        ("images/.hidden/../a.jpg", "masks/a.jpg"),
    ],
)
def test_layouts(tmp_path: Path, image: str, mask: str) -> None:
    touch(tmp_path, "images/.hidden/x.jpg") if ".hidden" in image else None
    image = image.replace(".hidden/../", "")
    touch(tmp_path, image, mask)
    found = pair_folders(tmp_path)
    assert found.pairs == ((image, mask),)
    assert (found.images_alone, found.masks_alone, found.doubled) == ((), (), ())


def test_pairs_are_made_by_name_and_what_is_left_is_reported(tmp_path: Path) -> None:
    touch(tmp_path, "Images/1/a.jpg", "Images/1/b.jpg", "Images/2/c.jpg", "Images/1/d.jpg", "Images/1/d.png",
          "Masks/1/b.png", "Masks/2/b.png", "Masks/2/c.png", "Masks/1/d.png", "Masks/notes.txt", "photo.jpg",
          "Images/1/.x.jpg")  # fmt: skip
    found = pair_folders(tmp_path)
    assert found.pairs == (("Images/1/b.jpg", "Masks/1/b.png"), ("Images/2/c.jpg", "Masks/2/c.png"))
    assert found.images_alone == ("Images/1/a.jpg",)
    assert found.masks_alone == ("Masks/2/b.png",)
    assert found.doubled == (("Images/1/d.jpg", "Images/1/d.png"),)


# dealing


def test_shares_are_kept_in_every_folder() -> None:
    groups = [str(k) for k in range(400)]
    folders = [str(k % 4) for k in range(400)]
    splits = assign_splits(groups, folders, val=0.1, test=0.2)
    for folder in "0123":
        counts = Counter(split for split, own in zip(splits, folders, strict=True) if own == folder)
        assert counts == {"train": 70, "val": 10, "test": 20}


def test_the_split_does_not_depend_on_the_order_of_the_rows() -> None:
    rows = [(f"g{k // 3}", str(k % 5)) for k in range(200)]
    by_group = dict(zip((g for g, _ in rows), assign_splits(*zip(*rows, strict=True), 0.2, 0.2), strict=True))
    random.Random(1).shuffle(rows)
    assert (
        dict(zip((g for g, _ in rows), assign_splits(*zip(*rows, strict=True), 0.2, 0.2), strict=True))
        == by_group
    )


def test_the_same_on_every_machine() -> None:
    splits = assign_splits([str(k) for k in range(12)], ["x"] * 12, 0.25, 0.25)
    assert " ".join(splits) == "train train train val test train train test val test val train"
    assert splits != assign_splits([str(k) for k in range(12)], ["x"] * 12, 0.25, 0.25, seed=1)


def test_groups_are_kept_whole_and_shares_still_near() -> None:
    draw = random.Random(0)
    groups = [f"g{k}" for k in range(60) for _ in range(draw.choice([1, 1, 2, 5, 12]))]
    folders = [draw.choice("abc") for _ in groups]
    splits = assign_splits(groups, folders, 0.15, 0.15)
    assert all(len({s for s, own in zip(splits, groups, strict=True) if own == g}) == 1 for g in set(groups))
    share = {split: count / len(groups) for split, count in Counter(splits).items()}
    assert share["val"] == pytest.approx(0.15, abs=0.04)
    assert share["test"] == pytest.approx(0.15, abs=0.04)


def test_one_row_more_moves_few_others() -> None:
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
def test_fractions_from_0_to_1(val: float, test: float, expected: dict[str, int]) -> None:
    assert Counter(assign_splits([str(k) for k in range(10)], ["x"] * 10, val, test)) == expected


def test_small_folders_do_not_all_round_alike() -> None:
    groups = [str(k) for k in range(60)]
    assert Counter(assign_splits(groups, [str(k // 3) for k in range(60)], 0.1, 0.1)) == {
        "train": 48,
        "val": 6,
        "test": 6,
    }


# the CSV


def test_index_writes_what_load_reads(tmp_path: Path) -> None:
    fill(tmp_path, "1", "2", "3", "4")
    touch(tmp_path, "Images/1/alone.jpg")
    report = index_dataset(tmp_path)
    assert report.csv == tmp_path / "nails.csv"
    assert report.counts == {"train": 32, "val": 4, "test": 4}
    assert "40 pairs (32 train, 4 val, 4 test)" in str(report)
    assert "1 without a mask, left out: Images/1/alone.jpg" in str(report)
    manifest = load_manifest(report.csv)
    assert manifest.notes == ()
    assert len(manifest.rows) == 40
    assert {row.group for row in manifest.rows if row.image == "Images/1/0.jpg"} == {"Images/1/0"}
    assert report.csv.read_bytes().startswith(b"image,mask,split,group\nImages/1/0.jpg,Masks/1/0.png,")


def test_the_same_seed_writes_the_same_bytes(tmp_path: Path) -> None:
    fill(tmp_path, "1", "2")
    texts = [
        index_dataset(tmp_path, out=tmp_path / f"{k}.csv", seed=k % 2).csv.read_bytes() for k in range(3)
    ]
    assert texts[0] == texts[2] != texts[1]


def test_what_is_no_csv_is_never_overwritten(tmp_path: Path) -> None:
    fill(tmp_path, "1")
    (tmp_path / "nails.csv").write_text("mine")
    with pytest.raises(DataError, match=r"nails\.csv: expected a column image"):
        index_dataset(tmp_path)
    assert (tmp_path / "nails.csv").read_text() == "mine"
    assert not (tmp_path / "nails.csv.bak").exists()


def test_folders_train_valid_and_test_are_kept_as_splits(tmp_path: Path) -> None:
    for split, count in (("train", 3), ("valid", 2)):
        names = range(count)
        touch(
            tmp_path,
            *(f"{split}/images/{split}{k}.jpg" for k in names),
            *(f"{split}/masks/{split}{k}.png" for k in names),
        )
    report = index_dataset(tmp_path, val=0.5, test=0.5, group=r"(\d)$")
    assert report.kept_folders
    assert report.counts == {"train": 3, "val": 2, "test": 0}
    assert "as the folders say" in str(report)
    assert "no folder for test" in str(report)
    assert "2 groups lie in several of the folders' splits: 0, 1" in str(report)


def test_groups_by_regular_expression(tmp_path: Path) -> None:
    names = [f"hand{k}_{frame}" for k in range(10) for frame in range(4)]
    touch(tmp_path, *(f"Images/{name}.jpg" for name in [*names, "x"]))
    touch(tmp_path, *(f"Masks/{name}.png" for name in [*names, "x"]))
    report = index_dataset(tmp_path, group=r"(hand\d+)_")
    splits_of: dict[str, set[str]] = {}
    for row in load_manifest(report.csv).rows:
        splits_of.setdefault(row.group, set()).add(row.split)
    assert set(splits_of) == {*(f"hand{k}" for k in range(10)), "Images/x"}
    assert all(len(splits) == 1 for splits in splits_of.values())
    assert report.counts == {"train": 33, "val": 4, "test": 4}
    assert "groups, kept whole: 9 train, 1 val, 1 test" in str(report)


def test_a_csv_outside_the_root_says_how_to_use_it(tmp_path: Path) -> None:
    fill(tmp_path / "data", "1")
    report = index_dataset(tmp_path / "data", out=tmp_path / "new" / "n.csv")
    assert f"paths are relative to {tmp_path / 'data'}: give it with --data.root" in str(report)
    assert len(load_manifest(report.csv, tmp_path / "data").rows) == 10


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"val": 0.6, "test": 0.6}, r"found 0\.6 and 0\.6"),
        ({"val": -0.1}, "from 0 to 1"),
        ({"group": "(hand"}, "expected --group to be a regular expression, found '\\(hand'"),
    ],
)
def test_options_that_make_no_sense(tmp_path: Path, options: dict, words: str) -> None:
    fill(tmp_path, "1")
    with pytest.raises(ConfigError, match=words):
        index_dataset(tmp_path, **options)
    assert not (tmp_path / "nails.csv").exists()


def test_nothing_to_pair(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected a folder with Images/ and Masks/, found no folder"):
        index_dataset(tmp_path / "nowhere")
    touch(tmp_path, "Images/a.jpg", "Masks/b.png")
    with pytest.raises(
        DataError, match=r"found 1 images and 1 masks without a partner, such as Images/a\.jpg"
    ):
        index_dataset(tmp_path)


def test_too_few_pairs_for_a_split_are_said(tmp_path: Path) -> None:
    fill(tmp_path, "1", count=1)
    assert "val got nothing: too few pairs" in str(index_dataset(tmp_path))


def test_a_name_that_is_not_utf8_is_left_out_by_name(tmp_path: Path) -> None:
    fill(tmp_path, "1")
    for folder, ending in (("Images", "jpg"), ("Masks", "png")):
        (
            Path(
                os.fsdecode(b"%s/%s/1/caf\xe9.%s" % (os.fsencode(tmp_path), folder.encode(), ending.encode()))
            )
        ).touch()
    report = index_dataset(tmp_path, near_duplicates=False)
    assert sum(report.counts.values()) == 10
    assert r"not UTF-8, left out: Images/1/caf\xe9.jpg, Masks/1/caf\xe9.png" in str(report)
    str(report).encode()  # can be printed


def test_an_old_row_whose_mask_is_gone_is_told_once(tmp_path: Path) -> None:
    fill(tmp_path, "1")
    index_dataset(tmp_path, near_duplicates=False)
    (tmp_path / "Masks/1/3.png").unlink()
    report = index_dataset(tmp_path, near_duplicates=False)
    lines = [line for line in str(report).splitlines() if "Images/1/3.jpg" in line]
    assert len(lines) == 1
    assert lines[0].startswith("1 old rows kept")
    assert sum(report.counts.values()) == 10
