"""`index_dataset`: the CSV it writes and the report it returns."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nailseg.data.manifest import load_manifest
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


def test_index_writes_a_csv_that_load_manifest_reads(tmp_path: Path) -> None:
    fill(tmp_path, "1", "2", "3", "4")
    touch(tmp_path, "Images/1/alone.jpg")
    report = index_dataset(tmp_path)
    assert report.csv == tmp_path / "dataset.csv"
    assert report.counts == {"train": 32, "val": 4, "test": 4}
    assert "40 pairs (32 train, 4 val, 4 test)" in str(report)
    assert "1 images without a mask, left out: Images/1/alone.jpg" in str(report)
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


def test_an_invalid_csv_is_not_overwritten(tmp_path: Path) -> None:
    fill(tmp_path, "1")
    (tmp_path / "dataset.csv").write_text("mine")
    with pytest.raises(DataError, match=r"dataset\.csv: expected a column image"):
        index_dataset(tmp_path)
    assert (tmp_path / "dataset.csv").read_text() == "mine"
    assert not (tmp_path / "dataset.csv.bak").exists()


def test_folders_train_valid_and_test_are_kept_as_splits(tmp_path: Path) -> None:
    for split, count in (("train", 3), ("valid", 2)):
        names = range(count)
        touch(
            tmp_path,
            *(f"{split}/images/{split}{k}.jpg" for k in names),
            *(f"{split}/masks/{split}{k}.png" for k in names),
        )
    report = index_dataset(tmp_path, group=r"(\d)$")
    assert report.kept_folders
    assert report.counts == {"train": 3, "val": 2, "test": 0}
    assert "from the folders' names" in str(report)
    assert "no rows in test: the folders or the existing rows have none" in str(report)
    assert "2 groups lie in several splits: 0, 1" in str(report)


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
    assert "groups: 9 train, 1 val, 1 test" in str(report)


def test_a_csv_outside_the_root_is_reported_with_the_option(tmp_path: Path) -> None:
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
def test_invalid_options(tmp_path: Path, options: dict, words: str) -> None:
    fill(tmp_path, "1")
    with pytest.raises(ConfigError, match=words):
        index_dataset(tmp_path, **options)
    assert not (tmp_path / "dataset.csv").exists()


def test_folders_without_pairs(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected a folder with Images/ and Masks/, found no folder"):
        index_dataset(tmp_path / "nowhere")
    touch(tmp_path, "Images/a.jpg", "Masks/b.png")
    with pytest.raises(DataError, match=r"(?s)found none.*1 images without a mask, left out: Images/a\.jpg"):
        index_dataset(tmp_path)


def test_empty_splits_are_reported(tmp_path: Path) -> None:
    fill(tmp_path, "1", count=1)
    assert "no rows in val and test: too few pairs or groups" in str(index_dataset(tmp_path))


def test_names_that_are_not_utf8_are_left_out_and_reported(tmp_path: Path) -> None:
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


def test_an_existing_row_without_its_mask_is_reported_once(tmp_path: Path) -> None:
    fill(tmp_path, "1")
    index_dataset(tmp_path, near_duplicates=False)
    (tmp_path / "Masks/1/3.png").unlink()
    report = index_dataset(tmp_path, near_duplicates=False)
    lines = [line for line in str(report).splitlines() if "Images/1/3.jpg" in line]
    assert len(lines) == 1
    assert lines[0].startswith("1 existing rows kept")
    assert sum(report.counts.values()) == 10


@pytest.mark.parametrize("option", ["val", "test", "seed"])
def test_options_of_the_split_are_refused_where_folders_decide_it(tmp_path: Path, option: str) -> None:
    fill(tmp_path, "train/images", "train/masks", "valid/images", "valid/masks")
    with pytest.raises(ConfigError, match=rf"--{option}: has no meaning .* add --resplit"):
        index_dataset(tmp_path, **{option: 0})
    assert not (tmp_path / "dataset.csv").exists()
    assert index_dataset(tmp_path, **{option: 0}, resplit=True).counts["train"] > 0
