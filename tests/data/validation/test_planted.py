"""For every code, a data set with exactly that issue is validated; a valid data set has no issues."""

from __future__ import annotations

import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from nailseg.data.datamodule import SegmentationDataModule
from nailseg.data.issues import ERRORS, UNUSABLE, WARNINGS, DataIssuesError
from nailseg.data.manifest import load_manifest
from nailseg.data.validation.validate import ValidationResult, validate_rows
from nailseg.errors import ConfigError, DataError
from tests.data.planted import draw_image, nail_mask, write_data_set

NEEDED = ("train", "val", "test")
THREE = ["background", "nail", "skin"]


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data_set(tmp_path_factory.mktemp("clean"))


@pytest.fixture
def data(clean: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(clean, tmp_path / "data"))


def validate(data: Path, names: list[str] | None = None, **options: object) -> ValidationResult:
    manifest = load_manifest(data / "dataset.csv", strict=False)
    options = {"splits_needed": NEEDED, **options}
    return validate_rows(manifest, names or ["background", "nail"], **options)


def edit(data: Path, old: str, new: str, count: int = -1) -> None:
    csv = data / "dataset.csv"
    csv.write_text(csv.read_text().replace(old, new, count))


def append(data: Path, line: str) -> None:
    edit(data, "image,mask,split,group\n", f"image,mask,split,group\n{line}\n")


def mask(data: Path, number: int, array: np.ndarray, mode: str | None = None) -> None:
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(data / f"Masks/{number}.png")


def masks(data: Path, draw: Callable[[int], np.ndarray], numbers: range = range(30)) -> None:
    for number in numbers:
        mask(data, number, draw(number))


def remake(data: Path, name: str) -> Path:
    (data / name).unlink()
    return data / name


def bomb(data: Path) -> None:
    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    header = struct.pack(">IIBBBBB", 40000, 40000, 8, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    (data / "Masks/0.png").write_bytes(b"\x89PNG\r\n\x1a\n" + parts)


def rotated(data: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(draw_image(0)).save(data / "Images/0.jpg", exif=exif)


def near_duplicate(data: Path) -> None:
    small = draw_image(0)[3:-2, 2:-5, :][:, ::-1]
    Image.fromarray(np.ascontiguousarray(small)).resize((128, 96)).save(data / "Images/20.jpg", quality=60)


def jpeg_mask(data: Path) -> None:
    Image.fromarray(nail_mask()).save(data / "Masks/0.jpg", quality=70)
    edit(data, "Masks/0.png", "Masks/0.jpg")


def palette_mask(data: Path) -> None:
    image = Image.fromarray(nail_mask() // 255).convert("P")
    image.putpalette([0, 0, 0, 255, 255, 255])
    image.save(data / "Masks/0.png")


def reordered_palette(data: Path) -> None:
    image = Image.fromarray(1 - nail_mask() // 255).convert("P")
    image.putpalette([255, 0, 0, 0, 0, 0])
    image.save(data / "Masks/0.png")


def alpha_mask(data: Path) -> None:
    flat = np.zeros((96, 128, 4), np.uint8)
    flat[..., 3] = nail_mask()
    mask(data, 0, flat)


def narrow_range(data: Path) -> None:
    """All images in 16 bits, of 512 neighbouring values."""
    for path in (data / "Images").iterdir():
        gray = np.asarray(Image.open(path).convert("L"), np.uint16)
        cv2.imencode(".png", 7600 + 2 * gray)[1].tofile(path.with_suffix(".png"))
        path.unlink()
    table = data / "dataset.csv"
    table.write_text(table.read_text().replace(".jpg", ".png"))


def data_as_alpha(data: Path) -> None:
    band = np.full((96, 128, 1), 120, np.uint8)
    pixels = np.concatenate([draw_image(0), band], axis=2)
    remake(data, "Images/0.jpg")
    Image.fromarray(pixels).save(data / "Images/0.png")
    edit(data, "Images/0.jpg", "Images/0.png")


def damaged_profile(data: Path) -> None:
    Image.fromarray(draw_image(0)).save(data / "Images/0.jpg", icc_profile=b"no profile" * 20)


def frames(data: Path) -> None:
    one = Image.fromarray(nail_mask())
    one.save(data / "Masks/0.png", save_all=True, append_images=[Image.fromarray(255 - nail_mask())])


PLANT: dict[str, Callable[[Path], object]] = {
    "missing-path": lambda d: append(d, ",Masks/0.png,train,x"),
    "path-outside": lambda d: append(d, "../a.jpg,Masks/0.png,train,x"),
    "duplicate-row": lambda d: append(d, "Images/3.jpg,Masks/3.png,train,g3"),
    "unknown-split": lambda d: append(d, "Images/x.jpg,Masks/0.png,dev,x"),
    "missing-file": lambda d: (d / "Images/0.jpg").unlink(),
    "not-a-file": lambda d: remake(d, "Images/0.jpg").mkdir(),
    "empty-file": lambda d: (d / "Images/0.jpg").write_bytes(b""),
    "unreadable": lambda d: (d / "Images/0.jpg").write_bytes((d / "Images/0.jpg").read_bytes()[:1500]),
    "multi-frame": frames,
    "too-large": bomb,
    "image-format": lambda d: Image.fromarray(draw_image(0)[..., 0].astype(np.float32)).save(
        d / "Images/0.jpg", "TIFF"
    ),
    "image-range": narrow_range,
    "image-alpha": data_as_alpha,
    "image-profile": damaged_profile,
    "mask-format": lambda d: mask(d, 0, draw_image(0)),
    "extension-mismatch": lambda d: Image.fromarray(draw_image(0)).save(d / "Images/0.jpg", format="PNG"),
    "no-mask": lambda d: edit(d, "Masks/0.png", ""),
    "size-mismatch": lambda d: mask(d, 0, nail_mask()[:90]),
    "orientation-mismatch": rotated,
    "mask-values": lambda d: mask(d, 0, nail_mask() // 255 * 7),
    "mask-mixed": lambda d: mask(d, 0, nail_mask() // 255),
    "palette-order": reordered_palette,
    "mask-full": lambda d: mask(d, 0, np.full((96, 128), 255, np.uint8)),
    "mask-inverted": lambda d: mask(d, 0, 255 - nail_mask()),
    "split-empty": lambda d: edit(d, ",val,", ",train,"),
    "no-foreground": lambda d: masks(d, lambda n: nail_mask() * 0, range(20, 25)),
    "class-missing": lambda d: masks(d, lambda n: nail_mask() // 255),
    "class-one-split": lambda d: masks(d, lambda n: nail_mask() // 255 * (1 + (n == 4))),
    "duplicate-image": lambda d: shutil.copy(d / "Images/1.jpg", d / "Images/0.jpg"),
    "group-split": lambda d: edit(d, ",g20", ",g3"),
    "duplicate-split": lambda d: shutil.copy(d / "Images/1.jpg", d / "Images/20.jpg"),
    "near-duplicate-split": near_duplicate,
    "mask-empty": lambda d: mask(d, 0, nail_mask() * 0),
    "mask-jpeg": jpeg_mask,
    "mask-antialiased": lambda d: mask(d, 0, cv2.GaussianBlur(nail_mask(), (0, 0), 1)),
    "mask-palette": palette_mask,
    "mask-rgb": lambda d: mask(d, 0, nail_mask(), "RGB"),
    "mask-alpha": alpha_mask,
    "mask-16-bit": lambda d: cv2.imwrite(str(d / "Masks/0.png"), nail_mask().astype(np.uint16)),
    "few-rows": lambda d: edit(d, "Images/29.jpg,Masks/29.png,test,g29\n", ""),
}
CLASSES = dict.fromkeys(("class-missing", "class-one-split"), THREE)


def test_a_valid_data_set_has_no_issues(clean: Path) -> None:
    result = validate(clean)
    assert (result.errors, result.warnings, result.skipped) == ((), (), ())


def test_every_code_has_a_planted_issue() -> None:
    assert PLANT.keys() == ERRORS.keys() | WARNINGS.keys()


@pytest.mark.parametrize("code", PLANT)
def test_exactly_the_planted_issue_is_found(data: Path, code: str) -> None:
    PLANT[code](data)
    result = validate(data, CLASSES.get(code))
    if code in WARNINGS:
        assert result.errors == ()
        assert {issue.code for issue in result.warnings} == {code}
        assert f"\nwarnings:\n{code} (1):" in result.summarize().text
    else:
        assert {issue.code for issue in result.errors} == {code}
        for issue in result.errors:
            assert issue.fix
            assert "expected" in issue.message or code in ("duplicate-row", "path-outside")
        with pytest.raises(DataIssuesError, match=rf"{code} \("):
            result.summarize()


@pytest.mark.parametrize("code", sorted(ERRORS.keys() - {"split-empty"}))
def test_allowed_errors_are_ignored(data: Path, code: str) -> None:
    PLANT[code](data)
    result = validate(data, CLASSES.get(code), allow=[code])
    assert result.errors == ()
    assert result.mask_encoding is not None
    assert {issue.code for issue in result.skipped} == ({code} if code in UNUSABLE else set())
    result.summarize()


@pytest.mark.parametrize("code", sorted(ERRORS.keys() - {"split-empty", "no-foreground"}))
def test_skip_bad_leaves_rows_out(data: Path, code: str) -> None:
    PLANT[code](data)
    result = validate(data, CLASSES.get(code), skip_bad=True)
    if code.startswith("class-") or code == "image-range":  # no single row causes these
        assert {issue.code for issue in result.errors} == {code}
    else:
        assert result.errors == ()
        assert {issue.code for issue in result.skipped} == {code}
        assert f"left out:\n{code} (1):" in result.summarize().text


def test_copies_leave_out_the_training_row(data: Path) -> None:
    near_duplicate(data)
    summary = validate(data, skip_bad=True).summarize()
    assert summary.left_out == ("Images/0.jpg",)
    assert summary.counts == {"train": 19, "val": 5, "test": 5}


def test_unknown_codes_and_split_empty_cannot_be_allowed(data: Path) -> None:
    for code in ("mask-ful", "split-empty"):
        with pytest.raises(ConfigError, match=rf"allow: expected codes of .*; found {code}\. Copy"):
            validate(data, allow=[code])


def test_the_data_module_records_allowed_codes_and_rows_left_out(data: Path) -> None:
    PLANT["missing-file"](data)
    PLANT["mask-full"](data)
    mask(data, 3, np.full((96, 128), 255, np.uint8))
    options = {"csv": str(data / "dataset.csv"), "size": 64, "workers": 0}
    with pytest.raises(DataError, match=r"(?s)missing-file \(1\).*mask-full \(2\)"):
        SegmentationDataModule(**options).setup("fit")
    module = SegmentationDataModule(**options, allow=["mask-full", "missing-file"])
    module.setup("fit")
    assert [row.image for row in module.rows("train")][:2] == ["Images/1.jpg", "Images/2.jpg"]
    assert len(module.dataset("train")) == 19
    assert module.facts()["data"]["allowed"] == ["mask-full", "missing-file"]
    assert module.facts()["data"]["left out"] == 1
    module = SegmentationDataModule(**options, skip_bad=True)
    module.setup("fit")
    assert len(module.dataset("train")) == 18
    with pytest.raises(ConfigError, match="found nonsense"):
        SegmentationDataModule(**options, allow=["nonsense"])


def test_max_pixels_applies_to_the_data_module(data: Path) -> None:
    options = {"csv": str(data / "dataset.csv"), "size": 64, "workers": 0}
    with pytest.raises(DataError, match="at most 100 pixels, found 128 x 96"):
        SegmentationDataModule(**options, max_pixels=100).setup("fit")


def test_a_similar_name_is_suggested(data: Path) -> None:
    edit(data, "Images/0.jpg", "Images/0.JPEG")
    assert validate(data).errors[0].fix == "The folder contains 0.jpg: correct the CSV."


def test_more_than_twenty_issues_of_a_code_are_written_to_a_file(data: Path) -> None:
    shutil.rmtree(data / "Images")
    with pytest.raises(DataIssuesError, match=r"and 10 more of this kind\nAll of them: ") as caught:
        validate(data).summarize()
    rest = Path(str(caught.value).rpartition("All of them: ")[2])
    assert rest.read_text().count("Images/") == 30
    rest.unlink()


@pytest.mark.parametrize("code", sorted(WARNINGS))
def test_allowed_warnings_are_not_shown(data: Path, code: str) -> None:
    PLANT[code](data)
    assert validate(data, CLASSES.get(code), allow=[code]).warnings == ()
