"""Palettes that order their colors differently from file to file, through `nailseg check`."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from nailseg.cli.main import main
from nailseg.data.io.masks import read_mask
from nailseg.data.manifest import load_manifest
from nailseg.data.validation.validate import validate_rows

RED, GREEN, BLACK = (200, 10, 10), (10, 180, 20), (0, 0, 0)


def draw_classes(seed: int, classes: int) -> np.ndarray:
    """A uint8 (H, W) truth: an ellipse per class, of random size: `quantize` orders by count."""
    rng, truth = np.random.default_rng(seed), np.zeros((64, 80), np.uint8)
    for index in range(1, classes):
        center = (int(rng.integers(12, 28)) + 38 * (index - 1), int(rng.integers(16, 48)))
        axes = (int(rng.integers(5, 16)), int(rng.integers(5, 14)))
        cv2.ellipse(truth, center, axes, 0, 0, 360, index, -1)
    return truth


def write_set(folder: Path, method: int | None, classes: int = 3) -> list[np.ndarray]:
    """24 images with masks that Pillow quantizes; returns the truths."""
    palette = np.array([BLACK, RED, GREEN], np.uint8)
    truths, lines = [draw_classes(seed, classes) for seed in range(24)], ["image,mask,split"]
    for number, truth in enumerate(truths):
        image = np.random.default_rng(number).integers(0, 255, (*truth.shape, 3)).astype(np.uint8)
        cv2.imwrite(str(folder / f"{number}.jpg"), image)
        Image.fromarray(palette[truth]).quantize(classes, method).save(folder / f"{number}.png")
        lines.append(f"{number}.jpg,{number}.png,{'train' if number < 18 else 'val'}")
    (folder / "dataset.csv").write_text("\n".join(lines) + "\n")
    return truths


def count_correct(
    folder: Path, truths: list[np.ndarray], names: list[str], values: dict | None = None
) -> int:
    result = validate_rows(load_manifest(folder / "dataset.csv"), names, values)
    assert result.errors == ()
    assert result.mask_encoding is not None
    masks = [read_mask(folder / f"{number}.png", result.mask_encoding) for number in range(24)]
    return sum(np.array_equal(mask, truth) for mask, truth in zip(masks, truths, strict=True))


@pytest.mark.parametrize("method", [None, 1, 2])
def test_reordered_palettes_are_an_error_whose_way_out_works(
    method: int | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truths = write_set(tmp_path, method)
    table = str(tmp_path / "dataset.csv")
    for names in (["background", "nail"], ["background", "red", "green"]):
        assert main(["check", table, "--classes", *names]) == 1
        message = capsys.readouterr().out
        assert "palette-order" in message
    mapping = shlex.split(re.search(r"--mask-values ('[^']+')", message)[1])[0]
    # black comes first, then the colors by value: green has less red
    assert mapping == '{"#000000": "background", "#0ab414": "red", "#c80a0a": "green"}'
    right = {"#000000": "background", "#c80a0a": "red", "#0ab414": "green"}
    assert count_correct(tmp_path, truths, ["background", "red", "green"], right) == 24


@pytest.mark.parametrize("method", [None, 1, 2])
def test_two_classes_are_read_by_their_colors(
    method: int | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truths = write_set(tmp_path, method, classes=2)
    assert main(["check", str(tmp_path / "dataset.csv")]) == 0
    assert count_correct(tmp_path, truths, ["background", "nail"]) == 24


def save_indices(folder: Path, palettes: list[list[int]], shift: int = 0) -> list[np.ndarray]:
    truths = write_set(folder, 1)
    for number, truth in enumerate(truths):
        image = Image.fromarray(truth + np.uint8(shift)).convert("P")
        image.putpalette(palettes[number % len(palettes)])
        image.save(folder / f"{number}.png")
    return truths


@pytest.mark.parametrize(
    "palette",
    [
        [*BLACK, *RED, *GREEN],
        [*BLACK, *GREEN, *RED],
        [9, 9, 200, *RED, *GREEN],  # no background among the colors, or one that is not black
        [255, 255, 255, *RED, *GREEN],
    ],
)
def test_one_order_in_all_files_is_read_by_index(palette: list[int], tmp_path: Path) -> None:
    truths = save_indices(tmp_path, [palette])
    assert count_correct(tmp_path, truths, ["background", "red", "green"]) == 24


def test_the_way_out_names_the_classes_that_are_missing(tmp_path: Path, capsys) -> None:
    write_set(tmp_path, 2)
    table = str(tmp_path / "dataset.csv")
    assert main(["check", table]) == 1
    message = capsys.readouterr().out
    for pasted in re.findall(r"--classes '\[[^']+' --mask-values '[^']+'", message):
        main(["check", table, *shlex.split(pasted)])
        assert "no errors" in capsys.readouterr().out
    assert message.count("--classes '[background,class_1,class_2]' --mask-values") == 2


def test_indices_can_be_declared_right(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truths = save_indices(tmp_path, [[*BLACK, *RED, *GREEN], [*BLACK, *GREEN, *RED]])
    names = ["background", "red", "green"]
    assert main(["check", str(tmp_path / "dataset.csv"), "--classes", *names]) == 1
    mapping = '{"0": "background", "1": "red", "2": "green"}'
    assert f"or that the indices are right: --mask-values '{mapping}'" in capsys.readouterr().out
    assert count_correct(tmp_path, truths, names, {"0": 0, "1": 1, "2": 2}) == 24


def test_a_background_must_be_index_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_indices(tmp_path, [[*RED, *BLACK, *GREEN]])
    assert main(["check", str(tmp_path / "dataset.csv"), "--classes", "background", "red", "green"]) == 1
    expected = "expected index 0 of the palette to be the background, found #c80a0a, and #000000 as index 1"
    assert expected in capsys.readouterr().out
