"""`validate_rows`: errors of files, encodings, options, and the summary."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nailseg.data.manifest import load_manifest
from nailseg.data.mask_encoding import MaskEncoding
from nailseg.data.validation.validate import DataIssuesError, DataSummary, validate_rows
from nailseg.errors import ConfigError

TWO = ["background", "nail"]
SPLITS = ["train", "train", "train", "val", "val", "test"]


def draw_mask() -> np.ndarray:
    mask = np.zeros((20, 30), np.uint8)
    mask[5:10, 5:17] = 255
    return mask


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Six clean pairs: rows 0-2 train, 3-4 val, 5 test."""
    rng = np.random.default_rng(0)
    lines = ["image,mask,split"]
    for folder in ("Images", "Masks"):
        (tmp_path / folder).mkdir()
    for number, split in enumerate(SPLITS):
        image = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(image).save(tmp_path / f"Images/{number}.jpg")
        Image.fromarray(draw_mask()).save(tmp_path / f"Masks/{number}.png")
        lines.append(f"Images/{number}.jpg,Masks/{number}.png,{split}")
    (tmp_path / "dataset.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def check(data: Path, names: list[str] = TWO, **options: object) -> DataSummary:
    return validate_rows(load_manifest(data / "dataset.csv"), names, **options).summarize()


def find_errors(data: Path, names: list[str] = TWO, **options: object) -> list[tuple[str, str]]:
    """Code and file of each error."""
    with pytest.raises(DataIssuesError) as caught:
        check(data, names, **options)
    return [(issue.code, issue.file) for issue in caught.value.issues]


def put_mask(data: Path, number: int, mask: np.ndarray) -> None:
    Image.fromarray(mask).save(data / f"Masks/{number}.png")


def test_a_valid_data_set_has_no_errors(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = check(data)
    assert summary.mask_encoding == MaskEncoding(((0, 0), (255, 1)), ("background", "nail"))
    assert summary.counts == {"train": 3, "val": 2, "test": 1}
    assert "masks: 0/255 read as background/nail\ntrain: 3 images, 10.00% foreground" in summary.text
    assert pickle.loads(pickle.dumps(summary)) == summary


def test_the_progress_bar_is_on_stderr(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    validate_rows(load_manifest(data / "dataset.csv"), TWO).summarize()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "checking data" in captured.err


@pytest.mark.parametrize(
    ("change", "code", "file"),
    [
        ("rm Images/1.jpg", "missing-file", "Images/1.jpg"),
        ("rm Masks/3.png", "missing-file", "Masks/3.png"),
        ("empty Images/0.jpg", "empty-file", "Images/0.jpg"),
        ("cut Images/0.jpg", "unreadable", "Images/0.jpg"),
        ("cut Masks/4.png", "unreadable", "Masks/4.png"),
        ("folder Images/2.jpg", "not-a-file", "Images/2.jpg"),
        ("size Masks/2.png", "size-mismatch", "Masks/2.png"),
        ("rotate Masks/2.png", "size-mismatch", "Masks/2.png"),
        ("value Masks/1.png", "mask-values", "Masks/1.png"),
        ("0/1 Masks/1.png", "mask-mixed", "Masks/1.png"),
        ("color Masks/1.png", "mask-values", "Masks/1.png"),
        ("photo Masks/1.png", "mask-format", "Masks/1.png"),
    ],
)
def test_errors_of_files(data: Path, change: str, code: str, file: str) -> None:
    what, name = change.split()
    path = data / name
    content = path.read_bytes()
    rng = np.random.default_rng(1)
    path.unlink()
    if what == "empty":
        path.touch()
    elif what == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif what == "folder":
        path.mkdir()
    elif what == "size":
        Image.fromarray(draw_mask()[:10]).save(path)
    elif what == "rotate":
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(draw_mask()).save(path, exif=exif)
    elif what == "value":
        Image.fromarray(draw_mask() // 255 * 7).save(path)
    elif what == "0/1":
        Image.fromarray(draw_mask() // 255).save(path)
    elif what == "color":
        Image.fromarray(np.stack([draw_mask(), draw_mask() * 0, draw_mask() * 0], axis=2)).save(path)
    elif what == "photo":
        Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(path)
    assert find_errors(data) == [(code, file)]


def test_a_rotated_mask_is_reported_as_rotated(data: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.fromarray(draw_mask()).save(data / "Masks/0.png", exif=exif)
    with pytest.raises(
        DataIssuesError, match=r"expected 30 x 20 .* like Images/0\.jpg, found 20 x 30\n    -> One .* rotated"
    ):
        check(data)


def test_images_and_masks_with_equal_orientation_are_valid(data: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("Images/0.jpg", "Masks/0.png"):
        with Image.open(data / name) as image:
            image.load()
        image.save(data / name, exif=exif)
    manifest = load_manifest(data / "dataset.csv")
    sizes = [scan.size for scan in validate_rows(manifest, TWO).scans]
    assert sizes == [(30, 20)] + [(20, 30)] * 4


def test_needed_splits_must_have_rows(data: Path) -> None:
    csv = data / "dataset.csv"
    csv.write_text(csv.read_text().replace(",val", ",train"))
    assert find_errors(data) == [("split-empty", "val")]
    assert "test: 1 images, 10.00% foreground" in check(data, splits_needed=("test",)).text


def test_a_needed_split_must_have_foreground(data: Path) -> None:
    for number in (3, 4):
        put_mask(data, number, draw_mask() * 0)
    assert find_errors(data) == [("no-foreground", "val")]
    put_mask(data, 3, draw_mask())
    assert "val: 2 images, 5.00% foreground, 1 without" in check(data).text


def test_a_row_without_mask(data: Path) -> None:
    csv = data / "dataset.csv"
    csv.write_text(csv.read_text().replace("Masks/1.png", ""))
    assert find_errors(data) == [("no-mask", "Images/1.jpg")]


def test_other_splits_count_only_for_the_mask_encoding(data: Path) -> None:
    (data / "Images/5.jpg").unlink()
    assert check(data).counts["test"] == 1
    assert find_errors(data, splits_needed=("test",)) == [("missing-file", "Images/5.jpg")]
    (data / "Masks/5.png").unlink()
    check(data)
    # alone, 0/1 would read as classes; beside the 0/255 of train it must not
    put_mask(data, 5, draw_mask() // 255)
    assert find_errors(data) == [("mask-mixed", "Masks/5.png")]


def test_max_pixels_limits_the_size(data: Path) -> None:
    assert {code for code, _ in find_errors(data, max_pixels=599)} == {"too-large"}
    check(data, max_pixels=600)


def test_the_error_lists_at_most_twenty_lines_per_code(data: Path) -> None:
    rows = "".join(f"Images/no{k}.jpg,Masks/0.png,train\n" for k in range(25))
    with open(data / "dataset.csv", "a") as file:
        file.write(rows)
    put_mask(data, 3, draw_mask()[:10])
    with pytest.raises(
        DataIssuesError,
        match=r"(?s)found 26 in 26 files or splits.*size-mismatch \(1\):.*missing-file \(25\):",
    ) as caught:
        check(data)
    text = str(caught.value)
    assert len(caught.value.issues) == 26
    assert text.count("Images/no") == 20
    assert "... and 5 more of this kind" in text
    assert text.count("correct the CSV or the data root") == 1
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.issues) == (text, caught.value.issues)


def test_a_given_encoding_is_used(data: Path) -> None:
    put_mask(data, 0, draw_mask() // 255)
    mapping = {"0": "background", "1": "nail", "255": "ignore"}
    summary = check(data, mask_values=mapping, splits_needed=("train",))
    assert summary.mask_encoding.describe() == "0/1/255 read as background/nail/ignore"
    assert "train: 3 images, 3.57% foreground, 2 without" in summary.text
    assert find_errors(data, mask_values=mapping) == [("no-foreground", "val")]
    assert find_errors(data, mask_values={"0": "background", "255": "nail"}) == [
        ("mask-values", "Masks/0.png")
    ]
    with pytest.raises(ConfigError, match="found 'toe'"):
        check(data, mask_values={"0": "toe"})
    assert check(data, mask_values=summary.mask_encoding, splits_needed=("train",)) == summary


def test_colors_and_palettes_with_a_given_encoding(data: Path) -> None:
    mask = draw_mask()
    for number in range(6):
        put_mask(data, number, np.stack([mask, mask * 0, mask * 0], axis=2))
    palette = Image.fromarray(1 - mask // 255).convert("P")
    palette.putpalette([255, 0, 0, 0, 0, 0])
    palette.save(data / "Masks/1.png")
    summary = check(data, mask_values={"#000000": "background", "#ff0000": "nail"})
    assert "val: 2 images, 10.00% foreground" in summary.text


def test_three_classes_and_jpeg_masks(data: Path) -> None:
    for number in range(6):
        put_mask(data, number, draw_mask() // 255 * (1 + number % 2))
    assert check(data, ["background", "nail", "skin"]).mask_encoding.describe() == (
        "0/1/2 read as background/nail/skin"
    )
    csv = data / "dataset.csv"
    csv.write_text(csv.read_text().replace(".png", ".jpg"))
    for number in range(6):
        Image.fromarray(draw_mask()).save(data / f"Masks/{number}.jpg", quality=60)
    share = float(re.search(r"val: 2 images, (.*)% foreground", check(data).text)[1])
    assert share == pytest.approx(10, abs=0.5)
    assert {code for code, _ in find_errors(data, ["background", "nail", "skin"])} == {"mask-values"}


def test_the_number_of_threads_does_not_matter(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (data / "Images/1.jpg").unlink()
    (data / "Masks/3.png").unlink()
    errors = find_errors(data)
    monkeypatch.setattr("nailseg.data.threads.MAX_THREADS", 1)
    assert find_errors(data) == errors
