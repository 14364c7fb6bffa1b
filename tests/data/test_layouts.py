"""Drawn data sets in the layouts of others: indexed without options, and their masks reach the training."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from unicodedata import normalize

import cv2
import numpy as np
import pytest
from PIL import Image

from nailseg.cli.main import main
from nailseg.data.io.masks import read_mask
from nailseg.data.manifest import load_manifest
from nailseg.data.validation.validate import validate_rows

STEMS = [f"ISIC_00{number:05d}" for number in range(12)]
SIZE = (48, 64)


def draw(number: int) -> tuple[np.ndarray, np.ndarray]:
    """An image uint8 (H, W, 3) and its truth uint8 (H, W), 0 or 1; different for every number."""
    rng = np.random.default_rng(number)
    truth = np.zeros(SIZE, np.uint8)
    cv2.ellipse(truth, (int(rng.integers(20, 44)), 24), (int(rng.integers(5, 12)), 9), 0, 0, 360, 1, -1)
    return rng.integers(0, 256, (*SIZE, 3)).astype(np.uint8), truth


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def isic(root: Path) -> None:
    for number, stem in enumerate(STEMS):
        image, truth = draw(number)
        write(root / f"ISIC-2017_Training_Data/{stem}.jpg", image)
        write(root / f"ISIC-2017_Training_Part1_GroundTruth/{stem}_segmentation.png", truth * 255)


def isic_2018(root: Path) -> None:
    for number, stem in enumerate(STEMS):
        image, truth = draw(number)
        write(root / f"ISIC2018_Task1-2_Training_Input/{stem}.jpg", image)
        write(root / f"ISIC2018_Task1_Training_GroundTruth/{stem}_segmentation.png", truth * 255)


def isic_beside(root: Path) -> None:
    for number, stem in enumerate(STEMS):
        image, truth = draw(number)
        write(root / f"{stem}.jpg", image)
        write(root / f"{stem}_segmentation.png", truth * 255)


def roboflow(root: Path) -> None:
    for number, stem in enumerate(STEMS):
        image, truth = draw(number)
        split = "train" if number < 8 else "valid" if number < 10 else "test"
        write(root / f"{split}/{stem}_jpg.rf.a1b2.jpg", image)
        write(root / f"{split}/{stem}_jpg.rf.a1b2_mask.png", truth)
        (root / split / "_classes.csv").write_text("Pixel Value, Class\n0, background\n1, nail\n")


def whole_name(root: Path) -> None:
    for number, stem in enumerate(STEMS):
        image, truth = draw(number)
        write(root / f"images/{stem}.jpg", image)
        write(root / f"masks/{stem}.jpg.png", truth * 255)


def suffixed(root: Path) -> None:
    for number, stem in enumerate(STEMS):
        image, truth = draw(number)
        write(root / f"Images/{number % 2}/{stem}.jpg", image)
        write(root / f"Masks/{number % 2}/{stem}_mask.png", truth * 255)


def voc(root: Path) -> None:
    for number, stem in enumerate(STEMS):
        image, truth = draw(number)
        write(root / f"JPEGImages/{stem}.jpg", image)
        (root / "SegmentationClass").mkdir(exist_ok=True)
        labels = Image.fromarray(truth).convert("P")
        labels.putpalette([0, 0, 0, 128, 0, 0])
        labels.save(root / f"SegmentationClass/{stem}.png")
        write(root / f"SegmentationObject/{stem}.png", truth * 7)


def cvat(root: Path) -> None:
    colors = np.array([(0, 0, 0), (250, 50, 83)], np.uint8)
    for number, stem in enumerate(STEMS):
        image, truth = draw(number)
        write(root / f"JPEGImages/{stem}.jpg", image)
        write(root / f"SegmentationClass/{stem}.png", colors[truth])
        write(root / f"SegmentationObject/{stem}.png", colors[truth])
    (root / "labelmap.txt").write_text(
        "# label:color_rgb:parts:actions\nnail:250,50,83::\nbackground:0,0,0::\n"
    )


def ade(root: Path) -> None:
    for number, stem in enumerate(STEMS):
        image, truth = draw(number)
        split = "training" if number < 9 else "validation"
        write(root / f"images/{split}/{stem}.jpg", image)
        write(root / f"annotations/{split}/{stem}.png", truth)


def carvana(root: Path) -> None:
    for number, stem in enumerate(STEMS):
        image, truth = draw(number)
        write(root / f"train/{stem}.jpg", image)
        write(root / f"train_masks/{stem}_mask.gif", truth * 255)


def cityscapes(root: Path) -> None:
    for number in range(12):
        image, truth = draw(number)
        split, city = ("train", "aachen") if number < 9 else ("val", "munster")
        stem = f"{split}/{city}/{city}_{number:06d}_000019"
        write(root / f"leftImg8bit/{stem}_leftImg8bit.png", image)
        write(root / f"gtFine/{stem}_gtFine_labelIds.png", truth)
        write(root / f"gtFine/{stem}_gtFine_color.png", np.repeat(truth[..., None] * 99, 3, axis=2))
        write(root / f"gtFine/{stem}_gtFine_instanceIds.png", truth * 26)


def decomposed(root: Path) -> None:
    """As a macOS zip: masks in the decomposed form of the images' names."""
    for number, stem in enumerate(STEMS):
        image, truth = draw(number)
        write(root / f"Images/{normalize('NFC', f'Nägel {stem} é')}.jpg", image)
        write(root / f"Masks/{normalize('NFD', f'Nägel {stem} é')}.png", truth * 255)


LAYOUTS = {
    isic: "ISIC",
    isic_2018: "ISIC",
    isic_beside: "masks beside their images",
    roboflow: "masks beside their images",
    whole_name: "Images and Masks",
    suffixed: "Images and Masks",
    voc: "Pascal VOC or CVAT",
    cvat: "Pascal VOC or CVAT",
    ade: "ADE20K",
    carvana: "Carvana",
    cityscapes: "Cityscapes",
    decomposed: "Images and Masks",
}


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_a_layout_is_recognised(layout, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layout(tmp_path)
    assert main(["index", str(tmp_path), "--no-near-duplicates"]) == 0
    printed = capsys.readouterr().out
    assert f"layout: {LAYOUTS[layout]}\n" in printed
    assert "left out" not in printed
    manifest = load_manifest(tmp_path / "dataset.csv")
    assert len(manifest.rows) == 12
    options = re.search(r"to train: (--data.classes .*)", printed)
    values = None
    if options:
        _, classes, _, mapping = shlex.split(options[1])
        assert classes == "[background,nail]"
        values = dict(re.findall(r'"([^"]+)": "([^"]+)"', mapping))
    splits = sorted({row.split for row in manifest.rows})
    result = validate_rows(manifest, ["background", "nail"], values, splits)
    assert result.errors == ()
    for row in manifest.rows:
        number = int(re.findall(r"\d{5,}", row.image.rpartition("/")[2])[0])
        truth = draw(number)[1]
        assert np.array_equal(read_mask(tmp_path / row.mask, result.mask_encoding), truth)
        assert np.abs(np.asarray(Image.open(tmp_path / row.image), int) - draw(number)[0]).mean() < 60


def count_splits(table: Path) -> list[int]:
    rows = load_manifest(table).rows
    return [sum(row.split == split for row in rows) for split in ("train", "val", "test")]


def test_splits_of_folders_are_kept_unless_split_again(tmp_path: Path) -> None:
    roboflow(tmp_path)
    table = tmp_path / "dataset.csv"
    assert main(["index", str(tmp_path), "--no-near-duplicates"]) == 0
    assert count_splits(table) == [
        8,
        2,
        2,
    ]
    again = ["index", str(tmp_path), "--no-near-duplicates", "--resplit", "--val", "0.25", "--test", "0.25"]
    assert main(again) == 0
    assert count_splits(table) == [
        6,
        3,
        3,
    ]
    assert (tmp_path / "dataset.csv.bak").exists()


def test_one_folder_named_train_can_be_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    carvana(tmp_path)
    assert main(["index", str(tmp_path), "--no-near-duplicates"]) == 0
    assert "--resplit" in capsys.readouterr().out
    assert main(["index", str(tmp_path), "--no-near-duplicates", "--resplit"]) == 0
    assert {row.split for row in load_manifest(tmp_path / "dataset.csv").rows} == {"train", "val", "test"}


def test_given_folders_and_suffix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, stem in enumerate(STEMS):
        image, truth = draw(number)
        write(tmp_path / f"raw/{stem}.jpg", image)
        write(tmp_path / f"out/labels/{stem}-seg.png", truth * 255)
    assert main(["index", str(tmp_path), "--no-near-duplicates"]) == 1
    assert "--images DIR --masks DIR" in capsys.readouterr().err
    folders = ["--images", str(tmp_path / "raw"), "--masks", str(tmp_path / "out/labels")]
    assert main(["index", str(tmp_path), "--no-near-duplicates", *folders]) == 1
    suggestion = f"out/labels/{STEMS[0]}-seg.png may be the mask of raw/{STEMS[0]}.jpg: --mask-suffix -seg"
    assert suggestion in capsys.readouterr().err
    assert main(["index", str(tmp_path), "--no-near-duplicates", *folders, "--mask-suffix=-seg"]) == 0
    rows = load_manifest(tmp_path / "dataset.csv").rows
    assert [(row.image, row.mask) for row in rows][:1] == [
        (f"raw/{STEMS[0]}.jpg", f"out/labels/{STEMS[0]}-seg.png")
    ]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--images", "."], "--images: expected --images and --masks together"),
        (["--images", "nowhere", "--masks", "."], "nowhere: expected a folder"),
        (["--images", "/", "--masks", "."], "expected a folder below"),
        (["--folds", "3", "--val", "0.3"], "--val: has no meaning beside --folds"),
    ],
)
def test_options_that_do_not_go_together(
    options: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    isic_beside(tmp_path)
    assert main(["index", ".", *options]) == 1
    assert words in capsys.readouterr().err


def test_options_of_folders_beside_a_csv(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    isic_beside(tmp_path)
    assert main(["index", str(tmp_path), "--no-near-duplicates"]) == 0
    assert main(["index", str(tmp_path / "dataset.csv"), "--mask-suffix", "_x", "--out", "b.csv"]) == 1
    assert "--mask-suffix: expected a folder as ROOT, found a CSV" in capsys.readouterr().err


def test_two_masks_of_one_image_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    isic_beside(tmp_path)
    write(tmp_path / f"{STEMS[0]}_mask.png", draw(0)[1] * 255)
    assert main(["index", str(tmp_path), "--no-near-duplicates"]) == 0
    assert "ambiguous names, left out" in capsys.readouterr().out
    assert len(load_manifest(tmp_path / "dataset.csv").rows) == 11


def test_an_exact_name_comes_before_a_suffix(tmp_path: Path) -> None:
    for stem in ("a", "a_mask"):
        image, truth = draw(len(stem))
        write(tmp_path / f"Images/{stem}.jpg", image)
        write(tmp_path / f"Masks/{stem}.png", truth * 255)
    assert main(["index", str(tmp_path), "--no-near-duplicates"]) == 0
    rows = load_manifest(tmp_path / "dataset.csv").rows
    assert {row.image: row.mask for row in rows} == {
        "Images/a.jpg": "Masks/a.png",
        "Images/a_mask.jpg": "Masks/a_mask.png",
    }
