"""Groups, strata and folds of `index_dataset`, and its treatment of an existing CSV."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from nailseg.cli.main import main
from nailseg.data.manifest import Row, load_manifest
from nailseg.data.splitting.index import index_dataset
from nailseg.data.validation.validate import validate_rows
from nailseg.errors import ConfigError, OutputError
from tests.data.planted import draw_image, nail_mask, write_data_set


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Thirty clean pairs without a CSV."""
    write_data_set(tmp_path)
    (tmp_path / "dataset.csv").unlink()
    return tmp_path


def add(data: Path, name: str, image: np.ndarray) -> None:
    for folder in ("Images", "Masks"):
        (data / folder / name).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(image)).save(data / f"Images/{name}.jpg", quality=80)
    Image.fromarray(np.resize(nail_mask(), image.shape[:2])).save(data / f"Masks/{name}.png")


def rows(csv: Path) -> dict[str, Row]:
    return {row.image: row for row in load_manifest(csv).rows}


def test_near_duplicates_are_in_one_split_and_pass_validation(data: Path) -> None:
    for number in range(12):
        add(data, f"copy{number}", np.rot90(draw_image(number)) if number % 2 else draw_image(number)[2:, 3:])
    report = index_dataset(data, val=0.3, test=0.3)
    assert "12 clusters of near-duplicates (24 images), each in one split" in str(report)
    found = rows(report.csv)
    for number in range(12):
        one, other = found[f"Images/{number}.jpg"], found[f"Images/copy{number}.jpg"]
        assert (one.split, one.group) == (other.split, other.group)
    options = {"class_names": ["background", "nail"], "splits_needed": ("train", "val", "test")}
    assert validate_rows(load_manifest(report.csv), **options).errors == ()
    random = index_dataset(data, out=data / "random.csv", val=0.3, test=0.3, near_duplicates=False)
    assert "clusters" not in str(random)
    errors = validate_rows(load_manifest(random.csv), **options).errors
    assert {issue.code for issue in errors} == {"near-duplicate-split"}


def test_foreground_sizes_are_split_in_proportion(data: Path) -> None:
    for number in range(15):
        Image.fromarray(nail_mask() * 0).save(data / f"Masks/{number}.png")
    found = rows(index_dataset(data, val=0.2, test=0.2).csv)
    empty = Counter(found[f"Images/{number}.jpg"].split for number in range(15))
    assert empty == {"train": 9, "val": 3, "test": 3}


def test_unreadable_pairs_are_reported(data: Path) -> None:
    (data / "Images/3.jpg").write_bytes(b"")
    assert "1 pairs cannot be read; nailseg check lists them" in str(index_dataset(data))


def test_duplicates_are_left_out_and_reported(data: Path) -> None:
    shutil.copy(data / "Images/3.jpg", data / "Images/9x.jpg")
    shutil.copy(data / "Masks/3.png", data / "Masks/9x.png")
    report = index_dataset(data)
    assert "1 duplicates (same bytes), left out: Images/9x.jpg" in str(report)
    assert len(rows(report.csv)) == 30


def test_existing_rows_keep_their_split_and_new_rows_join(data: Path) -> None:
    csv = index_dataset(data, val=0.3, test=0.3).csv
    before, text = rows(csv), csv.read_bytes()
    for number in range(10):
        add(data, f"copy{number}", draw_image(number)[:, ::-1])
    add(data, "unrelated", draw_image(99))
    report = index_dataset(data, val=0.3, test=0.3)
    after = rows(csv)
    assert {image: after[image] for image in before} == before
    for number in range(10):
        assert after[f"Images/copy{number}.jpg"].split == before[f"Images/{number}.jpg"].split
    assert after["Images/unrelated.jpg"].split in ("train", "val", "test")
    assert "30 existing rows kept, 11 new; the previous file is dataset.csv.bak" in str(report)
    assert (data / "dataset.csv.bak").read_bytes() == text
    with pytest.raises(OutputError, match=r"dataset\.csv\.bak: expected a new file, found an existing one"):
        index_dataset(data)


def test_new_rows_that_belong_to_two_splits_are_left_out(data: Path) -> None:
    lines = [f"Images/{k}.jpg,Masks/{k}.png,{'test' if k == 1 else 'train'},g{k % 2}" for k in (0, 1, 2)]
    (data / "dataset.csv").write_text("\n".join(["image,mask,split,group", *lines]))
    for number in range(3, 30):
        (data / f"Images/{number}.jpg").unlink()
    # of group g0 by its name, and a near-duplicate of image 1, which is test
    add(data, "g0", draw_image(1)[:, ::-1])
    add(data, "other", draw_image(50))
    report = index_dataset(data, group=r"(g\d)$")
    assert "1 new rows belong to several splits, left out: Images/g0.jpg" in str(report)
    assert set(rows(report.csv)) == {"Images/0.jpg", "Images/1.jpg", "Images/2.jpg", "Images/other.jpg"}


def test_groups_by_folder_and_by_column(data: Path) -> None:
    for folder in "abcdefgh":
        for number in range(3):
            add(data, f"{folder}/{number}", draw_image(ord(folder) * 10 + number))
    for name in range(30):
        (data / f"Images/{name}.jpg").unlink()
    found = rows(index_dataset(data, val=0.3, test=0.3, group="folder").csv)
    by_folder = {
        row.group: {r.split for r in found.values() if r.group == row.group} for row in found.values()
    }
    assert by_folder.keys() == {f"Images/{folder}" for folder in "abcdefgh"}
    assert all(len(splits) == 1 for splits in by_folder.values())
    lines = [f"{image},{row.mask},s{number % 5}" for number, (image, row) in enumerate(found.items())]
    (data / "given.csv").write_text("\n".join(["image,mask,subject", *lines]))
    found = rows(index_dataset(data / "given.csv", out=data / "new.csv", group="column:subject").csv)
    assert {row.group for row in found.values()} == {f"s{k}" for k in range(5)}
    assert {dict(row.extra)["subject"] == row.group for row in found.values()} == {True}
    with pytest.raises(ConfigError, match=r"--group column:hand to name a column, found group, subject\."):
        index_dataset(data / "given.csv", out=data / "x.csv", group="column:hand")


def test_folds_share_the_test_rows(data: Path) -> None:
    report = index_dataset(data, test=0.2, folds=4)
    assert not (data / "dataset.csv").exists()
    folds = [rows(data / f"dataset-fold{k}.csv") for k in (1, 2, 3, 4)]
    assert "written: dataset-fold1.csv, dataset-fold2.csv" in str(report)
    for image in folds[0]:
        splits = Counter(fold[image].split for fold in folds)
        assert splits in ({"test": 4}, {"val": 1, "train": 3})
    assert [Counter(r.split for r in fold.values()) for fold in folds] == [
        {"train": 18, "val": 6, "test": 6}
    ] * 4
    with pytest.raises(OutputError, match=r"dataset-fold1\.csv: expected a new file"):
        index_dataset(data, folds=4)
    with pytest.raises(ConfigError, match="--folds of 2 or more, found 1"):
        index_dataset(data, folds=1)


def test_a_csv_without_splits_is_split_and_backed_up(data: Path) -> None:
    shutil.copytree(data / "Images", data / "x")
    lines = [f"Images/{k}.jpg,Masks/{k}.png,s{k % 10}" for k in range(30)]
    (data / "dataset.csv").write_text("\n".join(["image,mask,subject", *lines]))
    found = rows(index_dataset(data, group="column:subject", val=0.2, test=0.2).csv)
    assert Counter(row.split for row in found.values()) == {"train": 18, "val": 6, "test": 6}
    assert (data / "dataset.csv.bak").read_text().startswith("image,mask,subject\n")


def test_one_scene_is_said_at_once(tmp_path: Path, capsys) -> None:
    """One studio, one pose: 40 frames that differ in noise alone, and what then passes the check."""
    scene = cv2.GaussianBlur(
        np.random.default_rng(0).integers(0, 256, (96, 96, 3)).astype(np.uint8), (0, 0), 5
    )
    scene = cv2.normalize(scene, None, 0, 255, cv2.NORM_MINMAX)
    for number in range(40):
        noise = np.random.default_rng(number).integers(-3, 4, scene.shape)
        for folder in ("Images", "Masks"):
            (tmp_path / folder).mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / f"Images/{number}.png"), (scene + noise).clip(0, 255).astype(np.uint8))
        mask = np.zeros((96, 96), np.uint8)
        mask[20:40, 20 : 30 + number % 5] = 255
        cv2.imwrite(str(tmp_path / f"Masks/{number}.png"), mask)
    table = str(tmp_path / "dataset.csv")
    assert main(["index", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "one cluster holds 40 of 40 images" in printed
    assert "--no-near-duplicates" in printed
    (tmp_path / "dataset.csv").unlink()
    assert main(["index", str(tmp_path), "--no-near-duplicates"]) == 0
    assert main(["check", table]) == 1
    assert main(["check", table, "--allow", "near-duplicate-split"]) == 0
