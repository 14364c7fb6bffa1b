"""Class indices beside gray edges: two classes by default, and masks with more values than two."""

from __future__ import annotations

import re
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from nailseg.cli.main import main
from nailseg.data.io.masks import read_mask
from nailseg.data.manifest import load_manifest
from nailseg.data.mask_content import find_flat_values
from nailseg.data.validation.validate import ValidationResult, validate_rows

SIZE = (90, 120)
NAMES = ["background", "nail"]


def draw_nails(seed: int, scale: int = 1) -> np.ndarray:
    """uint8 (H, W), 0/255: three ellipses."""
    rng, mask = np.random.default_rng(seed), np.zeros((SIZE[0] * scale, SIZE[1] * scale), np.uint8)
    for column in (20, 60, 100):
        axes = (int(rng.integers(6, 14)) * scale, int(rng.integers(8, 20)) * scale)
        center = (column * scale, int(rng.integers(30, 60)) * scale)
        cv2.ellipse(mask, center, axes, int(rng.integers(90)), 0, 360, 255, -1)
    return mask


def draw_labels(seed: int, values: tuple[int, ...], thickness: int = -1) -> np.ndarray:
    """uint8 (H, W): an ellipse per value, filled or in outline, and 1 % of the pixels 255 at random."""
    rng, mask = np.random.default_rng(seed), np.zeros(SIZE, np.uint8)
    for number, value in enumerate(values):
        axes = (int(rng.integers(6, 14)), int(rng.integers(8, 20)))
        cv2.ellipse(mask, (20 + 35 * number, int(rng.integers(30, 60))), axes, 0, 0, 360, value, thickness)
    if 255 not in values:
        mask[rng.random(SIZE) < 0.01] = 255
    return mask


def write_set(folder: Path, masks: list[np.ndarray | bytes], suffix: str = "png") -> str:
    lines = ["image,mask,split"]
    for number, mask in enumerate(masks):
        image = np.random.default_rng(number).integers(0, 255, (*SIZE, 3)).astype(np.uint8)
        cv2.imwrite(str(folder / f"{number}.jpg"), image)
        content = mask if isinstance(mask, bytes) else cv2.imencode(f".{suffix}", mask)[1].tobytes()
        (folder / f"mask{number}.{suffix}").write_bytes(content)
        lines.append(f"{number}.jpg,mask{number}.{suffix},{'train' if number % 4 else 'val'}")
    (folder / "dataset.csv").write_text("\n".join(lines) + "\n")
    return str(folder / "dataset.csv")


def validate(table: str, names: list[str] = NAMES) -> ValidationResult:
    return validate_rows(load_manifest(table), names)


@pytest.mark.parametrize("thickness", [-1, 1, 2])
@pytest.mark.parametrize("values", [(1, 2, 3), (1, 2), (1, 3, 255), (2, 3), (1, 2, 3, 4)])
def test_class_indices_are_no_gray_edges(
    values: tuple[int, ...], thickness: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    masks = [draw_labels(seed, values, thickness) for seed in range(12)]
    table = write_set(tmp_path, masks)
    assert main(["check", table]) == 1
    text = capsys.readouterr().out
    assert "mask-values (12)" in text
    assert "look like class indices, with 255 for ignore" in text
    names = re.search(r"--classes '\[([^]]+)\]'", text)[1].split(",")
    assert names == ["background", *(f"class_{k}" for k in range(1, max(set(values) - {255}) + 1))]
    result = validate(table, names)
    missing = set(range(1, len(names))) - set(values)
    assert {issue.code for issue in result.errors} == ({"class-missing"} if missing else set())
    assert np.array_equal(read_mask(tmp_path / "mask0.png", result.mask_encoding), masks[0])


def test_a_gray_area_beside_white_names_the_values(tmp_path: Path) -> None:
    table = write_set(tmp_path, [draw_labels(seed, (128, 255)) for seed in range(12)])
    result = validate(table)
    assert [issue.code for issue in result.errors] == ["mask-values"] * 12
    assert "found also 128" in result.errors[0].message
    assert "--data.mask_values" in result.errors[0].fix
    assert "class_1" not in result.errors[0].fix


def through_jpeg(mask: np.ndarray, quality: int) -> bytes:
    buffer = BytesIO()
    Image.fromarray(mask).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def through_png_of_jpeg(mask: np.ndarray, quality: int) -> bytes:
    gray = cv2.imdecode(np.frombuffer(through_jpeg(mask, quality), np.uint8), cv2.IMREAD_GRAYSCALE)
    return cv2.imencode(".png", gray)[1].tobytes()


@pytest.mark.parametrize("quality", range(30, 100, 5))
@pytest.mark.parametrize(("write", "suffix"), [(through_jpeg, "jpg"), (through_png_of_jpeg, "png")])
def test_compressed_masks_are_0_and_255(write, suffix: str, quality: int, tmp_path: Path) -> None:
    masks = [draw_nails(seed) for seed in range(12)]
    table = write_set(tmp_path, [write(mask, quality) for mask in masks], suffix)
    result = validate(table)
    assert result.errors == ()
    assert result.mask_encoding.mapping == ((0, 0), (255, 1))
    for number, mask in enumerate(masks):
        found = read_mask(tmp_path / f"mask{number}.{suffix}", result.mask_encoding)
        assert np.mean(found != mask // 255) < 0.01


def resize(mask: np.ndarray, size: tuple[int, int], interpolation: int) -> np.ndarray:
    """Resizes to (height, width)."""
    return cv2.resize(mask, size[::-1], interpolation=interpolation)


SOFT = {
    "area": lambda seed: resize(draw_nails(seed, 4), SIZE, cv2.INTER_AREA),
    "halved": lambda seed: resize(draw_nails(seed, 2), SIZE, cv2.INTER_AREA),
    "cubic": lambda seed: resize(cv2.pyrDown(draw_nails(seed)), SIZE, cv2.INTER_CUBIC),
    "blurred": lambda seed: cv2.GaussianBlur(draw_nails(seed), (0, 0), 1.5),
    "enlarged": lambda seed: resize(
        resize(draw_nails(seed), (30, 40), cv2.INTER_AREA), SIZE, cv2.INTER_NEAREST
    ),
}


@pytest.mark.parametrize("kind", SOFT)
def test_gray_edges_are_thresholded(kind: str, tmp_path: Path) -> None:
    table = write_set(tmp_path, [SOFT[kind](seed) for seed in range(12)])
    result = validate(table)
    assert result.errors == ()
    assert result.mask_encoding.antialiased
    assert {issue.code for issue in result.warnings} - {"few-rows"} == {"mask-antialiased"}


def test_flat_values_need_areas() -> None:
    outline = np.zeros((20, 20), np.uint8)
    outline[5:15, 5] = 7
    outline[2:6, 10:14] = 9
    assert find_flat_values(outline) == [0, 9]
    enlarged = np.kron(np.random.default_rng(0).integers(0, 200, (12, 12)), np.ones((4, 4))).astype(np.uint8)
    assert find_flat_values(enlarged) == []
