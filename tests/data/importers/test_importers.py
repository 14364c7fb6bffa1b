"""Small sources in each format are imported as data sets that pass validation."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from nailseg.cli.main import main
from nailseg.data.importers.huggingface import _select_columns
from nailseg.data.importers.importer import ImportReport, import_dataset
from nailseg.data.manifest import Manifest, load_manifest
from nailseg.data.validation.validate import DataIssuesError, DataSummary, validate_rows
from nailseg.errors import ConfigError, DataError, NailsegError, OutputError

WIDTH, HEIGHT = 40, 30
SQUARE = "0.25 0.2 0.75 0.2 0.75 0.8 0.25 0.8"
"""Columns 10 to 29, rows 6 to 23 of the image."""


def photo(path: Path, orientation: int | None = None, size: tuple[int, int] = (WIDTH, HEIGHT)) -> bytes:
    """A JPEG (the name seeds its pixels), stored as `size` says (width, height)."""
    rng = np.random.default_rng(list(path.as_posix().encode()))
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    data = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), np.uint8)).save(data, "JPEG", exif=exif)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.getvalue())
    return data.getvalue()


def label(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def yolo(
    root: Path, layout: str = "{split}/images/{name}", splits: tuple[str, ...] = ("train", "valid", "test")
) -> Path:
    """Two images per split, one nail each."""
    for split in splits:
        for name in ("a", "b"):
            image = root / layout.format(split=split, name=f"{split}_{name}.jpg")
            photo(image)
            label(Path(image.as_posix().replace("images/", "labels/")).with_suffix(".txt"), f"0 {SQUARE}")
    (root / "data.yaml").write_text("train: ../train/images\nval: ../valid/images\nnc: 1\nnames: ['nail']\n")
    return root


def read(manifest: Manifest, image: str) -> np.ndarray:
    """The written mask of an image, as stored."""
    row = next(row for row in manifest.rows if row.image == image)
    return cv2.imdecode(np.fromfile(manifest.path(row.mask or ""), np.uint8), cv2.IMREAD_UNCHANGED)


def validate(report: ImportReport) -> tuple[Manifest, DataSummary]:
    manifest = load_manifest(report.csv)
    # the sources are tiny and repeat one image: the import has to keep their leaks
    leaks = ("class-one-split", "duplicate-split", "group-split", "near-duplicate-split", "duplicate-image")
    return manifest, validate_rows(manifest, report.class_names, allow=leaks).summarize()


def square(value: int = 255) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[6:24, 10:30] = value
    return mask


# YOLO


@pytest.mark.parametrize(
    ("layout", "splits", "place"),
    [("{split}/images/{name}", ("train", "valid", "test"), "Images/valid/valid_a.jpg"),
     ("images/{split}/{name}", ("train", "val"), "Images/val/val_a.jpg")],
)  # fmt: skip
def test_yolo_layouts(tmp_path: Path, layout: str, splits: tuple[str, ...], place: str) -> None:
    report = import_dataset("yolo", str(yolo(tmp_path / "src", layout, splits)), tmp_path / "out")
    manifest, summary = validate(report)
    assert summary.counts == {("val" if split == "valid" else split): 2 for split in splits}
    np.testing.assert_array_equal(read(manifest, place), square())
    source = dict(next(row for row in manifest.rows if row.image == place).extra)["source"]
    assert manifest.path(place).read_bytes() == (tmp_path / "src" / source).read_bytes()


def test_yolo_splits_of_data_yaml_precede_folder_names(tmp_path: Path) -> None:
    root = yolo(tmp_path / "src", "images/{split}/{name}", ("one", "two"))
    (root / "data.yaml").write_text("path: .\ntrain: [images/one]\nval: images/two\nnames: {0: nail}\n")
    manifest, _ = validate(import_dataset("yolo", str(root), tmp_path / "out"))
    assert {row.image.split("/")[1]: row.split for row in manifest.rows} == {"one": "train", "two": "val"}
    (root / "data.yaml").write_text("train: images\nval: images/two\nnames: {0: nail}\n")
    with pytest.raises(DataIssuesError, match="expected one split, found train and val"):
        import_dataset("yolo", str(root), tmp_path / "other")
    # a list of another machine, or of images that were not downloaded, says nothing about these
    (root / "data.yaml").write_text("train: images/one\nval: images/two\ntest: ../test.txt\nnames: [nail]\n")
    validate(import_dataset("yolo", str(root), tmp_path / "listed"))
    (root / "data.yaml").write_text("train: images/one\nval: ../val.txt\nnames: {0: nail}\n")
    (root / "val.txt").touch()
    with pytest.raises(DataError, match=r"expected folders of images for val, found the list val.txt"):
        import_dataset("yolo", str(root), tmp_path / "other")


def test_yolo_groups_of_roboflow_and_resplit(tmp_path: Path) -> None:
    root = yolo(tmp_path / "src")
    for split, mark in (("train", "1f"), ("valid", "2e")):
        photo(root / split / "images" / f"IMG_7_jpg.rf.{mark}.jpg")
        label(root / split / "labels" / f"IMG_7_jpg.rf.{mark}.txt", f"0 {SQUARE}")
    report = import_dataset("yolo", str(root), tmp_path / "out")
    assert "1 groups lie in several of the source's splits, such as IMG_7_jpg" in str(report)
    anew = import_dataset("yolo", str(root), tmp_path / "anew", resplit=True)
    rows = [row for row in validate(anew)[0].rows if row.group == "IMG_7_jpg"]
    assert len(rows) == 2
    assert len({row.split for row in rows}) == 1


def test_missing_splits_are_taken_from_train(tmp_path: Path) -> None:
    for name in "cdef":
        photo(tmp_path / f"src/train/images/{name}.jpg")
        label(tmp_path / f"src/train/labels/{name}.txt", f"0 {SQUARE}")
    report = import_dataset("yolo", str(yolo(tmp_path / "src", splits=("train",))), tmp_path / "out")
    assert report.counts == {"train": 4, "val": 1, "test": 1}
    assert "val and test: not in the source, taken from train" in str(report)
    yolo(tmp_path / "src", splits=("test",))
    report = import_dataset("yolo", str(tmp_path / "src"), tmp_path / "more")
    assert report.counts == {"train": 5, "val": 1, "test": 2}


@pytest.mark.parametrize(
    ("line", "found"),
    [(f"7 {SQUARE}", "class id of 0, found 7"), ("0 0.5 0.5 0.2 0.2", "found 4 numbers: a box"),
     ("0 0.1 0.1 0.9 0.1 0.5 1.4", "found 1.4"), ("nail 0 0 1 0 1 1", "class id of 0, found nail"),
     ("0 0.1 0.1 0.9 0.1 0.5 0.4 0.3", "found 7 numbers")],
)  # fmt: skip
def test_yolo_malformed_lines(tmp_path: Path, line: str, found: str) -> None:
    root = yolo(tmp_path / "src")
    label(root / "train/labels/train_b.txt", f"0 {SQUARE}", "", line)
    with pytest.raises(DataIssuesError, match=found) as caught:
        import_dataset("yolo", str(root), tmp_path / "out")
    assert "train/labels/train_b.txt line 3" in str(caught.value)
    assert not list((tmp_path).glob("out/*"))
    report = import_dataset("yolo", str(root), tmp_path / "out", skip_bad=True)
    assert sum(report.counts.values()) == 5
    assert "train/labels/train_b.txt line 3" in str(report)
    validate(report)


def test_yolo_images_without_labels_and_labels_without_images(tmp_path: Path) -> None:
    root = yolo(tmp_path / "src")
    photo(root / "train/images/empty.jpg")
    photo(root / "cover.jpg")
    label(root / "labels/classes.txt", "nail")
    report = import_dataset("yolo", str(root), tmp_path / "out")
    assert "1 images without a label file" in str(report)
    assert "1 images outside a folder images, left out" in str(report)
    assert not read(validate(report)[0], "Images/train/empty.jpg").any()
    label(root / "train/labels/lost.txt", f"0 {SQUARE}")
    with pytest.raises(
        DataIssuesError, match=r"train/labels/lost.txt: expected an image of this name, found none"
    ):
        import_dataset("yolo", str(root), tmp_path / "more")


def test_yolo_two_images_of_one_name_share_a_label_only_if_there_is_one(tmp_path: Path) -> None:
    root = yolo(tmp_path / "src")
    for suffix in ("jpg", "jpeg"):
        photo(root / f"train/images/empty.{suffix}")
    report = import_dataset("yolo", str(root), tmp_path / "out")
    assert "2 images without a label file" in str(report)
    assert (tmp_path / "out/Masks/train/empty.jpeg.png").is_file()
    label(root / "train/labels/empty.txt", f"0 {SQUARE}")
    with pytest.raises(DataIssuesError, match=r"empty.txt: expected one image for this label, found two"):
        import_dataset("yolo", str(root), tmp_path / "more")


def test_two_images_never_share_a_mask(tmp_path: Path) -> None:
    root = yolo(tmp_path / "src")
    names = ("x.jpg", "x.jpeg", "x.jpg.jpeg")  # x.jpg.png would be the mask of the first and of the last
    for name in names:
        photo(root / f"train/images/{name}")
    with pytest.raises(DataIssuesError, match=r"train/x.jpg.jpeg: expected .*Masks/train/x.jpg.png"):
        import_dataset("yolo", str(root), tmp_path / "out")
    report = import_dataset("yolo", str(root), tmp_path / "out", skip_bad=True)
    assert {row.image for row in load_manifest(report.csv).rows} >= {"Images/train/x.jpeg"}
    assert not (tmp_path / "out/Images/train/x.jpg.jpeg").exists()


def test_damaged_images_leave_no_output(tmp_path: Path) -> None:
    root = yolo(tmp_path / "src")
    image = root / "valid/images/valid_a.jpg"
    image.write_bytes(image.read_bytes()[:300])
    with pytest.raises(DataIssuesError, match=r"valid/images/valid_a.jpg"):
        import_dataset("yolo", str(root), tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())
    report = import_dataset("yolo", str(root), tmp_path / "out", skip_bad=True)
    assert sum(report.counts.values()) == 5
    validate(report)


def test_exif_orientation_if_the_source_states_no_size(tmp_path: Path) -> None:
    root = yolo(tmp_path / "src")
    photo(root / "train/images/train_a.jpg", orientation=6)  # stored 40 x 30, shown 30 x 40
    shares = "0 0.0 0.0 0.5 0.0 0.5 0.25 0.0 0.25"  # the upper left of whichever grid
    label(root / "train/labels/train_a.txt", shares)
    shown = np.zeros((WIDTH, HEIGHT), np.uint8)
    shown[:10, :15] = 255
    stored = np.zeros((HEIGHT, WIDTH), np.uint8)
    stored[: HEIGHT // 4, :20] = 255
    for exif, expected in (("upright", shown), ("stored", np.rot90(stored, -1))):
        report = import_dataset("yolo", str(root), tmp_path / exif, exif=exif)
        mask = read(validate(report)[0], "Images/train/train_a.jpg")
        assert (mask != expected).sum() <= 20  # a quarter of 30 rows ends within a row
        assert f"1 images with an EXIF orientation, labels taken as {exif}" in str(report)


# classes


def several_classes(root: Path) -> Path:
    root = yolo(root)
    small = "0.4 0.4 0.6 0.4 0.6 0.6 0.4 0.6"
    label(root / "train/labels/train_a.txt", f"2 {small}", f"0 {SQUARE}")
    label(root / "valid/labels/valid_a.txt", f"3 {small}", f"0 {SQUARE}")
    (root / "data.yaml").write_text("names: [finger, unused, nail, toenail]\n")
    return root


@pytest.mark.parametrize(
    ("classes", "names", "middle"),
    [(None, ("background", "finger", "nail", "toenail"), (2, 3)),
     (["nail=nail,toenail"], ("background", "nail"), (255, 255)),
     (["finger", "nail=*"], ("background", "finger", "nail"), (2, 2)),
     (["nail"], ("background", "nail"), (255, 0))],
)  # fmt: skip
def test_classes_are_kept_and_merged(
    tmp_path: Path, classes: Any, names: tuple[str, ...], middle: tuple[int, int]
) -> None:
    report = import_dataset("yolo", str(several_classes(tmp_path / "src")), tmp_path / "out", classes=classes)
    assert report.class_names == names
    manifest = load_manifest(report.csv)
    found = [read(manifest, f"Images/{p}_a.jpg")[15, 20] for p in ("train/train", "valid/valid")]
    assert tuple(found) == middle
    if classes != ["nail"]:  # then val has no nail, which is an error
        validate(report)
    if classes == ["nail"]:
        assert "finger (6 annotations): not in --classes" in str(report)
    if classes is None:
        assert "unused (0 annotations): left out" in str(report)
        assert """--data.classes '["background", "finger", "nail", "toenail"]'""" in str(report)


@pytest.mark.parametrize("classes", [["thumb"], ["nail", "x=nail"]])
def test_unknown_or_repeated_classes(tmp_path: Path, classes: list[str]) -> None:
    with pytest.raises(ConfigError, match="expected classes of the source, each once"):
        import_dataset("yolo", str(several_classes(tmp_path / "src")), tmp_path / "out", classes=classes)


# COCO


def coco_file(root: Path, split: str, annotations: list[dict[str, Any]], **image: Any) -> Path:
    """Roboflow's layout: the JSON beside its images a.jpg and b.jpg."""
    for name in ("a", "b"):
        photo(root / split / f"{name}.jpg")
    images = [
        {"id": k, "file_name": f"{name}.jpg", "width": WIDTH, "height": HEIGHT, **image}
        for k, name in enumerate("ab")
    ]
    categories = [{"id": 0, "name": "nails"}, {"id": 4, "name": "nail"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    path = root / split / "_annotations.coco.json"
    path.write_text(json.dumps(content))
    return path


def nail(segmentation: Any, image: int = 0, **more: Any) -> dict[str, Any]:
    return {"id": 9, "image_id": image, "category_id": 4, "segmentation": segmentation, **more}


def test_coco_polygons_run_lengths_and_crowds(tmp_path: Path) -> None:
    ring = np.zeros((HEIGHT, WIDTH), np.uint8)
    ring[4:20, 4:30] = 1
    ring[8:12, 8:12] = 0  # a hole
    packed = coco.encode(np.asfortranarray(ring))["counts"].decode()
    size = [HEIGHT, WIDTH]
    polygon = [[10, 6, 30, 6, 30, 24, 10, 24]]
    column = [0, HEIGHT, HEIGHT * (WIDTH - 1)]
    coco_file(tmp_path / "src", "train", [nail(polygon), nail({"size": size, "counts": packed}, 1)])
    coco_file(tmp_path / "src", "valid", [nail({"size": size, "counts": column}, iscrowd=1)])
    report = import_dataset("coco", str(tmp_path / "src"), tmp_path / "out")
    manifest, summary = validate(report)
    assert summary.counts == {"train": 2, "val": 2}
    assert report.class_names == ("background", "nail")  # "nails" has no annotation
    np.testing.assert_array_equal(read(manifest, "Images/train/a.jpg"), square())
    np.testing.assert_array_equal(read(manifest, "Images/train/b.jpg"), ring * 255)
    assert read(manifest, "Images/valid/a.jpg").sum() == 255 * HEIGHT
    assert not read(manifest, "Images/valid/b.jpg").any()


def test_coco_2017_layout(tmp_path: Path) -> None:
    """annotations/instances_{train,val}2017.json, the same names in both folders of images."""
    for split in ("train", "val"):
        file = coco_file(tmp_path / "src", f"{split}2017", [nail([[10, 6, 30, 6, 30, 24, 10, 24]])])
        (tmp_path / "src/annotations").mkdir(exist_ok=True)
        file.rename(tmp_path / f"src/annotations/instances_{split}2017.json")
    manifest, summary = validate(import_dataset("coco", str(tmp_path / "src"), tmp_path / "out"))
    assert summary.counts == {"train": 2, "val": 2}
    assert {row.split for row in manifest.rows if "val2017" in row.image} == {"val"}
    one = tmp_path / "src/annotations/instances_val2017.json"
    report = import_dataset("coco", str(one), tmp_path / "one")
    assert report.counts == {"train": 0, "val": 2, "test": 0}
    assert "2 images that no JSON lists, left out" in str(report)


@pytest.mark.parametrize("orientation", [3, 6, 8])
@pytest.mark.parametrize("grid", ["upright", "stored"])
def test_coco_size_states_the_labelled_grid(tmp_path: Path, orientation: int, grid: str) -> None:
    turned = orientation > 4
    size = (HEIGHT, WIDTH) if turned and grid == "upright" else (WIDTH, HEIGHT)  # width, height
    corner = nail([[0, 0, 8, 0, 8, 4, 0, 4]])  # 8 x 4 pixels, upper left of the labelled grid
    coco_file(tmp_path / "src", "train", [corner], width=size[0], height=size[1])
    for name in ("a", "b"):
        photo(tmp_path / f"src/train/{name}.jpg", orientation)
    report = import_dataset(
        "coco",
        str(tmp_path / "src"),
        tmp_path / "out",
        exif=grid if not turned else "upright",
    )
    mask = read(load_manifest(report.csv), "Images/train/a.jpg")
    labelled = np.zeros((size[1], size[0]), np.uint8)
    labelled[:4, :8] = 255
    turns = {3: 2, 6: -1, 8: 1}[orientation] if grid == "stored" else 0
    np.testing.assert_array_equal(mask, np.rot90(labelled, turns))
    assert ("2 images with an EXIF orientation" in str(report)) is not turned


@pytest.mark.parametrize(
    ("annotation", "found"),
    [(nail([]), "expected a segmentation"), (nail("x"), "expected a segmentation"),
     (nail([[1, 1, 5, 5]]), "found 4 numbers: a box"), (nail([[1, 1, 90, 5, 4, 4]]), "found 90"),
     (nail([[1, 1, 9, 5, 4, 4]], category_id=1), "category id of the file, found 1"),
     (nail([[1, 1, 9, 5, 4, 4]], image=77), "found image_id 77"),
     (nail({"size": [HEIGHT, WIDTH], "counts": "04"}), "found 4"),
     (nail({"size": [WIDTH, HEIGHT], "counts": [1200]}), "expected run lengths of size")],
)  # fmt: skip
def test_coco_malformed_annotations(tmp_path: Path, annotation: dict[str, Any], found: str) -> None:
    coco_file(tmp_path / "src", "train", [nail([[1, 1, 9, 5, 4, 4]], 1), annotation])
    with pytest.raises(DataIssuesError, match=found) as caught:
        import_dataset("coco", str(tmp_path / "src"), tmp_path / "out")
    assert "train/_annotations.coco.json annotation 9" in str(caught.value)


def test_coco_images_missing_listed_twice_or_of_another_size(tmp_path: Path) -> None:
    outline = nail([[1, 1, 9, 5, 4, 4]])
    path = coco_file(tmp_path / "src", "train", [outline])
    (tmp_path / "src/train/b.jpg").unlink()
    with pytest.raises(DataIssuesError, match=r"image 1 \(b.jpg\): expected one image of this name"):
        import_dataset("coco", str(tmp_path / "src"), tmp_path / "out")
    path.with_name("copy.json").write_text(path.read_text())
    with pytest.raises(DataIssuesError, match=r"found it in train/_annotations.coco.json too"):
        import_dataset("coco", str(tmp_path / "src"), tmp_path / "out")
    coco_file(tmp_path / "size", "train", [outline], width=WIDTH + 1)
    with pytest.raises(DataIssuesError, match="expected labels for 40 x 30"):
        import_dataset("coco", str(tmp_path / "size"), tmp_path / "out")
    (tmp_path / "size/train/_annotations.coco.json").write_text("[1]")
    with pytest.raises(DataError, match="expected a JSON with images, annotations and categories"):
        import_dataset("coco", str(tmp_path / "size"), tmp_path / "out")


@pytest.mark.parametrize("seed", range(60))
def test_mutated_labels_are_read_or_raise_a_nailseg_error(tmp_path: Path, seed: int) -> None:
    """Bytes replaced or removed: a NailsegError or a data set, never another exception."""
    rng = np.random.default_rng(seed)
    if kind := seed % 3:
        file = yolo(tmp_path / "src") / ("data.yaml" if kind == 1 else "train/labels/train_a.txt")
    else:
        counts = {"size": [HEIGHT, WIDTH], "counts": "04"}
        file = coco_file(tmp_path / "src", "train", [nail([[1, 1, 9, 5, 4, 4]]), nail(counts, 1)])
    data = bytearray(file.read_bytes())
    for _ in range(rng.integers(1, 4)):
        place, length = rng.integers(len(data)), rng.integers(1, 9)
        pieces = (b"", b"-", b"null", b"[", b"9e999", b"\xff", b'"', bytes(data[:9]))
        data[place : place + length] = pieces[rng.integers(len(pieces))]
    file.write_bytes(data)
    with contextlib.suppress(NailsegError):
        report = import_dataset("yolo" if kind else "coco", str(tmp_path / "src"), tmp_path / "out")
        assert load_manifest(report.csv).rows


# Hugging Face


@pytest.fixture
def datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return datasets


def pairs(root: Path, values: list[int], count: int = 4) -> dict[str, list[str]]:
    """Files of images, and of masks with a square of each of the values in turn."""
    for k in range(count):
        photo(root / f"{k}.jpg")
        Image.fromarray(square(values[k % len(values)])).save(root / f"{k}_mask.png")
    return {
        "image": [str(root / f"{k}.jpg") for k in range(count)],
        "label": [str(root / f"{k}_mask.png") for k in range(count)],
    }


@pytest.mark.parametrize("several", [False, True])
def test_hub_saved_to_disk(tmp_path: Path, datasets: Any, several: bool) -> None:
    columns = {**pairs(tmp_path / "raw", [1, 2] if several else [1]), "subject": ["x", "x", "y", "y"]}
    table = datasets.Dataset.from_dict(columns)
    for name in ("image", "label"):
        table = table.cast_column(name, datasets.Image())
    datasets.DatasetDict({"train": table, "validation": table}).save_to_disk(tmp_path / "src")
    classes = ["nail", "toenail"] if several else None
    report = import_dataset("hub", str(tmp_path / "src"), tmp_path / "out", classes=classes)
    manifest, summary = validate(report)
    assert summary.counts == {"train": 4, "val": 4}
    np.testing.assert_array_equal(
        read(manifest, "Images/validation/000001.jpg"), square(2 if several else 255)
    )
    assert manifest.path("Images/train/000003.jpg").read_bytes() == (tmp_path / "raw/3.jpg").read_bytes()
    assert [row.group for row in manifest.select("train")] == ["subject x"] * 2 + ["subject y"] * 2
    if several:
        with pytest.raises(DataError, match="Here the options are called --classes"):
            import_dataset("hub", str(tmp_path / "src"), tmp_path / "two", mask_values={"0": 0, "9": 1})
        merged = {"0": "background", "1": "nail", "2": "nail"}
        import_dataset("hub", str(tmp_path / "src"), tmp_path / "one", mask_values=merged)
        np.testing.assert_array_equal(
            read(load_manifest(tmp_path / "one/dataset.csv"), "Images/train/000001.jpg"), square()
        )


def test_hub_trimaps(tmp_path: Path, datasets: Any) -> None:
    """Oxford-IIIT Pet's schema: 1 pet, 2 background, 3 border, beside columns that do not matter."""
    trimap = square(1)
    trimap[trimap == 0] = 2
    trimap[6:8, 10:30] = 3
    files = pairs(tmp_path / "raw", [1])
    for mask in files["label"]:
        Image.fromarray(trimap).save(mask)
    columns = {"image": files["image"], "mask": files["label"], "label": [0, 1, 0, 1], "dog": [True] * 4}
    table = datasets.Dataset.from_dict(columns)
    for name in ("image", "mask"):
        table = table.cast_column(name, datasets.Image())
    datasets.DatasetDict({"train": table, "test": table}).save_to_disk(tmp_path / "src")
    meaning = '{"1": "pet", "2": "background", "3": "border"}'
    args = ["import", "hub", str(tmp_path / "src"), str(tmp_path / "out"), "--columns", "image,mask"]
    assert main([*args, "--classes", "pet", "--classes", "border", "--mask-values", meaning]) == 0
    manifest = load_manifest(tmp_path / "out/dataset.csv")
    expected = square(1)
    expected[6:8, 10:30] = 2
    np.testing.assert_array_equal(read(manifest, "Images/train/000000.jpg"), expected)
    # the same masks without the import
    validate_rows(
        load_manifest(_raw(tmp_path / "raw", files)),
        ["background", "pet", "border"],
        {"1": "pet", "2": "background", "3": "border"},
        allow=("near-duplicate-split", "duplicate-image", "duplicate-split"),
    ).summarize()


def _raw(root: Path, files: dict[str, list[str]]) -> Path:
    rows = [f"{Path(i).name},{Path(m).name}" for i, m in zip(*files.values(), strict=True)]
    (root / "pets.csv").write_text("\n".join(["image,mask", *rows]) + "\n")
    return root / "pets.csv"


def test_hub_imagefolder_and_ignored_pixels(tmp_path: Path, datasets: Any) -> None:
    for split in ("train", "test"):
        files = pairs(tmp_path / "src" / split, [1, 255])
        lines = [
            json.dumps({"file_name": Path(image).name, "mask_file_name": Path(mask).name})
            for image, mask in zip(*files.values(), strict=True)
        ]
        (tmp_path / "src" / split / "metadata.jsonl").write_text("\n".join(lines))
    report = import_dataset(
        "hub", str(tmp_path / "src"), tmp_path / "out", mask_values={0: 0, 1: 1, 255: 255}
    )
    assert report.counts == {"train": 3, "val": 1, "test": 4}
    manifest = load_manifest(report.csv)
    np.testing.assert_array_equal(read(manifest, "Images/test/000000.jpg"), square(1))
    np.testing.assert_array_equal(read(manifest, "Images/test/000001.jpg"), square(255))
    assert "masks are 0, 1 and 255 (ignore). To train: --data.mask_values" in str(report)
    with pytest.raises(DataError, match="expected a column of images and one of masks"):
        import_dataset("hub", str(tmp_path / "src"), tmp_path / "x", columns="image,depth")


def test_hub_columns_are_found_by_name(datasets: Any) -> None:
    for names, found in (
        (["depth", "Picture", "label"], ("Picture", "label")),
        (["truth", "photo"], ("photo", "truth")),
    ):
        features = datasets.Features(dict.fromkeys(names, datasets.Image()))
        table = datasets.Dataset.from_dict({name: [] for name in names}, features)
        assert _select_columns("someone/nails", table, None)[1:3] == found
    features = {"depth": datasets.Image(), "image": datasets.Image(), "mask": datasets.Value("int64")}
    table = datasets.Dataset.from_dict({name: [] for name in features}, datasets.Features(features))
    with pytest.raises(DataError, match="found image columns depth, image among depth, image, mask"):
        _select_columns("someone/nails", table, "image,mask")


def test_hub_without_a_network_gives_one_clear_error(tmp_path: Path) -> None:
    """In a subprocess: the library reads its settings when it is imported."""
    lines = "from nailseg.cli.main import main; import sys; sys.exit(main(sys.argv[1:]))"
    for settings in ({"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0"}, {"HF_HUB_OFFLINE": "1"}):
        env = {**os.environ, "HF_HOME": str(tmp_path / "home"), **settings}
        start = time.monotonic()
        command = [sys.executable, "-c", lines, "import", "hub", "someone/nails", str(tmp_path / "out")]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 1, done.stderr
        assert "nailseg: someone/nails: expected" in done.stderr
        assert "Traceback" not in done.stderr
        assert time.monotonic() - start < 60  # seconds on a free machine, imports included


# command line


def test_command_line_and_invalid_arguments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    src, out = yolo(tmp_path / "src"), tmp_path / "out"
    assert main(["import", "yolo", str(src), str(out)]) == 0
    assert "dataset.csv: 6 pairs (2 train, 2 val, 2 test)" in capsys.readouterr().out
    with pytest.raises(OutputError, match="expected a new or empty folder"):
        import_dataset("yolo", str(src), out)
    with pytest.raises(OutputError, match="expected a folder outside"):
        import_dataset("yolo", str(src), src / "new")
    assert main(["import", "coco", str(tmp_path / "none"), str(tmp_path / "new")]) == 1
    assert "expected a folder or file to import, found nothing" in capsys.readouterr().err
    assert main(["import", "yolo", str(src), str(tmp_path / "new"), "--columns", "a,b"]) == 1
    (src / "data.yaml").unlink()
    assert main(["import", "yolo", str(src), str(tmp_path / "new")]) == 1
    assert "expected a data.yaml that names the classes" in capsys.readouterr().err
