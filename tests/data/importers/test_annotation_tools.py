"""labelme, VIA, CVAT, Label Studio, loose COCO and YOLO, parquet: drawn sets, masks counted by hand."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from nailseg.cli.main import main

HEIGHT, WIDTH, COUNT = 60, 80, 12
SQUARE = [(10, 20), (30, 20), (30, 40), (10, 40)]  # x, y; 20 x 20 pixels
FLAT = [value for point in SQUARE for value in point]


def write_images(folder: Path) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(COUNT):
        image = np.random.default_rng(number).integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
        cv2.imwrite(str(folder / f"img{number}.jpg"), image)
    return [f"img{number}.jpg" for number in range(COUNT)]


def read_masks(out: Path) -> list[np.ndarray]:
    return [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in sorted((out / "Masks").rglob("*.png"))]


def square() -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[20:40, 10:30] = 255
    return mask


def run(kind: str, src: Path, out: Path, *options: str) -> int:
    return main(["import", kind, str(src), str(out), *options])


def write_labelme(folder: Path, shape: dict) -> None:
    for name in write_images(folder):
        content = {"version": "5.4.1", "imagePath": f"..\\somewhere\\{name}", "imageData": None}
        content |= {"imageHeight": HEIGHT, "imageWidth": WIDTH, "shapes": [{"label": "nail", **shape}]}
        (folder / name).with_suffix(".json").write_text(json.dumps(content))
    (folder / "notes.json").write_text("[1, 2]")


def png_mask() -> str:
    buffer = io.BytesIO()
    Image.fromarray(np.ones((20, 20), bool)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


LABELME = {
    "polygon": {"shape_type": "polygon", "points": SQUARE},
    "old polygon": {"points": SQUARE},
    "rectangle": {"shape_type": "rectangle", "points": [[30, 40], [10, 20]]},
    "mask": {"shape_type": "mask", "points": [[10, 20], [29, 39]], "mask": png_mask()},
}


@pytest.mark.parametrize("shape", LABELME)
def test_labelme(shape: str, tmp_path: Path) -> None:
    write_labelme(tmp_path / "in", LABELME[shape])
    assert run("labelme", tmp_path / "in", tmp_path / "out") == 0
    masks = read_masks(tmp_path / "out")
    assert len(masks) == COUNT
    assert all(np.array_equal(mask, square()) for mask in masks)
    assert (tmp_path / "out" / "dataset.csv").is_file()


def test_labelme_circle(tmp_path: Path) -> None:
    write_labelme(tmp_path / "in", {"shape_type": "circle", "points": [[40, 30], [40, 40]]})
    assert run("labelme", tmp_path / "in", tmp_path / "out") == 0
    assert (read_masks(tmp_path / "out")[0] > 0).sum() == pytest.approx(np.pi * 100, rel=0.03)


@pytest.mark.parametrize("kind", ["line", "point", "linestrip"])
def test_shapes_without_an_area_are_issues(kind: str, tmp_path: Path, capsys) -> None:
    write_labelme(tmp_path / "in", {"shape_type": kind, "points": [[40, 30], [40, 40]]})
    assert run("labelme", tmp_path / "in", tmp_path / "out") == 1
    assert f"expected a segmentation (polygons or run lengths), found {kind}" in capsys.readouterr().err
    assert run("labelme", tmp_path / "in", tmp_path / "out", "--skip-bad") == 1
    message = capsys.readouterr().err
    assert "expected annotated images, found none" in message
    assert f"The first of {COUNT} issues: " in message
    assert f"found {kind}" in message


VIA = {
    "polygon": {
        "name": "polygon",
        "all_points_x": [x for x, _ in SQUARE],
        "all_points_y": [y for _, y in SQUARE],
    },
    "rect": {"name": "rect", "x": 10, "y": 20, "width": 20, "height": 20},
}


@pytest.mark.parametrize("shape", VIA)
@pytest.mark.parametrize("form", ["project", "annotations", "old"])
def test_via(shape: str, form: str, tmp_path: Path) -> None:
    names = write_images(tmp_path / "in")
    attributes = {"class": {"nail": True}} if form == "project" else {"class": "nail"}
    regions = [{"shape_attributes": VIA[shape], "region_attributes": attributes}]
    regions = {"0": regions[0]} if form == "old" else regions
    content = {f"{name}123": {"filename": name, "size": 123, "regions": regions} for name in names}
    content = {"_via_settings": {}, "_via_img_metadata": content} if form == "project" else content
    (tmp_path / "in" / "via.json").write_text(json.dumps(content))
    assert run("via", tmp_path / "in", tmp_path / "out") == 0
    assert all(np.array_equal(mask, square()) for mask in read_masks(tmp_path / "out"))


def test_via_ellipse(tmp_path: Path) -> None:
    names = write_images(tmp_path / "in")
    shape = {"name": "ellipse", "cx": 40, "cy": 30, "rx": 20, "ry": 8, "theta": 0.5}
    regions = [{"shape_attributes": shape, "region_attributes": {"class": "nail"}}]
    content = {name: {"filename": name, "regions": regions} for name in names}
    (tmp_path / "in" / "via.json").write_text(json.dumps(content))
    assert run("via", tmp_path / "in", tmp_path / "out") == 0
    mask = read_masks(tmp_path / "out")[0]
    expected = cv2.ellipse(
        np.zeros((HEIGHT, WIDTH), np.uint8), ((40, 30), (40, 16), np.degrees(0.5)), 255, -1
    )
    assert (mask > 0).sum() == pytest.approx(np.pi * 20 * 8, rel=0.03)
    assert np.logical_and(mask, expected).sum() / np.logical_or(mask, expected).sum() > 0.9


CVAT = {
    "polygon": '<polygon label="nail" points="10,20;30,20;30,40;10,40" z_order="0"/>',
    "box": '<box label="nail" xtl="10" ytl="20" xbr="30" ybr="40"/>',
    "mask": '<mask label="nail" rle="0, 400" left="10" top="20" width="20" height="20"/>',
}


@pytest.mark.parametrize("shape", CVAT)
def test_cvat(shape: str, tmp_path: Path) -> None:
    entries = [
        f'<image id="{n}" name="{name}" width="{WIDTH}" height="{HEIGHT}">{CVAT[shape]}</image>'
        for n, name in enumerate(write_images(tmp_path / "in" / "images"))
    ]
    text = f'<?xml version="1.0"?><annotations><version>1.1</version>{"".join(entries)}</annotations>'
    (tmp_path / "in" / "annotations.xml").write_text(text)
    assert run("cvat", tmp_path / "in", tmp_path / "out") == 0
    masks = read_masks(tmp_path / "out")
    assert len(masks) == COUNT
    assert all(np.array_equal(mask, square()) for mask in masks)


@pytest.mark.parametrize(
    ("kind", "expected"), [("labelme", "labelme's"), ("via", "via's"), ("cvat", "cvat's")]
)
def test_another_format_is_named(kind: str, expected: str, tmp_path: Path, capsys) -> None:
    write_images(tmp_path / "in")
    (tmp_path / "in" / "a.json").write_text('{"a": 1}')
    (tmp_path / "in" / "a.xml").write_text("<x/>")
    assert run(kind, tmp_path / "in", tmp_path / "out") == 1
    assert f"expected {expected}" in capsys.readouterr().err


def write_coco(folder: Path, images: list[dict], annotations: list[dict]) -> None:
    content = {"images": images, "annotations": annotations, "categories": [{"id": "7", "name": "nail"}]}
    (folder / "result.json").write_text(json.dumps(content))


def test_coco_as_label_studio_exports_it(tmp_path: Path) -> None:
    """Ids that are texts in one table and numbers in another, one flat polygon, no sizes."""
    names = write_images(tmp_path / "in" / "images")
    images = [{"id": str(n), "file_name": f"images\\{name}"} for n, name in enumerate(names)]
    annotations = [
        {"id": n, "image_id": n, "category_id": 7, "segmentation": FLAT if n % 2 else [FLAT]}
        for n in range(COUNT)
    ]
    write_coco(tmp_path / "in", images, annotations)
    assert run("coco", tmp_path / "in", tmp_path / "out") == 0
    masks = read_masks(tmp_path / "out")
    assert len(masks) == COUNT
    assert all(np.array_equal(mask, square()) for mask in masks)


def test_single_annotations_can_be_left_out(tmp_path: Path, capsys) -> None:
    names = write_images(tmp_path / "in")
    images = [{"id": n, "file_name": name, "width": WIDTH, "height": HEIGHT} for n, name in enumerate(names)]
    good = [{"id": n, "image_id": n, "category_id": "7", "segmentation": [FLAT]} for n in range(COUNT)]
    bad = [{"id": 99, "image_id": 3, "category_id": "7", "segmentation": [[1, 2, 3, 4]]}]
    write_coco(tmp_path / "in", images, good + bad)
    assert run("coco", tmp_path / "in", tmp_path / "out") == 1
    assert "annotation 99" in capsys.readouterr().err
    assert run("coco", tmp_path / "in", tmp_path / "whole", "--skip-bad") == 0
    assert len(read_masks(tmp_path / "whole")) == COUNT - 1
    assert run("coco", tmp_path / "in", tmp_path / "single", "--skip-annotations") == 0
    assert "1 annotations that cannot be used, left out" in capsys.readouterr().out
    masks = read_masks(tmp_path / "single")
    assert len(masks) == COUNT
    assert all(np.array_equal(mask, square()) for mask in masks)


def write_yolo(folder: Path, subfolder: str) -> None:
    shares = " ".join(f"{x / WIDTH} {y / HEIGHT}" for x, y in SQUARE)
    for name in write_images(folder / "images" / subfolder):
        label = folder / "labels" / subfolder / Path(name).with_suffix(".txt")
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text(f"0 {shares}\n")


def test_yolo_as_label_studio_exports_it(tmp_path: Path) -> None:
    write_yolo(tmp_path / "in", "")
    (tmp_path / "in" / "classes.txt").write_text("nail\n")
    (tmp_path / "in" / "notes.json").write_text('{"categories": [{"id": 0, "name": "nail"}]}')
    assert run("yolo", tmp_path / "in", tmp_path / "out") == 0
    assert all(np.array_equal(mask, square()) for mask in read_masks(tmp_path / "out"))


def test_yolo_whose_train_is_its_val(tmp_path: Path, capsys) -> None:
    write_yolo(tmp_path / "in", "all")
    (tmp_path / "in" / "data.yaml").write_text("train: images/all\nval: images/all\nnames: [nail]\n")
    assert run("yolo", tmp_path / "in", tmp_path / "out") == 0
    printed = capsys.readouterr().out
    assert "images/all: given for several splits in data.yaml, split anew" in printed
    assert f"{COUNT} pairs (10 train, 1 val, 1 test)" in printed


@pytest.mark.parametrize("form", ["bytes", "struct", "arrays"])
def test_parquet(form: str, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def encode(array: np.ndarray) -> bytes:
        return cv2.imencode(".png", array)[1].tobytes()

    images = [
        np.random.default_rng(n).integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8) for n in range(COUNT)
    ]
    masks = [square() for _ in images]
    if form == "bytes":
        table = {"image": [encode(i) for i in images], "mask": [encode(m) for m in masks]}
    elif form == "struct":
        table = {"image": [{"bytes": encode(i), "path": f"{n}.png"} for n, i in enumerate(images)],
                 "label": [{"bytes": encode(m), "path": None} for m in masks]}  # fmt: skip
    else:
        table = {"image": [encode(i) for i in images], "mask": [m.tolist() for m in masks]}
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table(table), tmp_path / "in" / "train-00000-of-00001.parquet")
    options = [] if form == "bytes" else ["--columns", "image,label" if form == "struct" else "image,mask"]
    assert run("hub", tmp_path / "in", tmp_path / "out", *options) == 0
    found = read_masks(tmp_path / "out")
    assert len(found) == COUNT
    assert all(np.array_equal(mask, square()) for mask in found)


def test_polygons_of_predict_come_back(tmp_path: Path, monkeypatch) -> None:
    """polygons.json has what importers of COCO need, and restores the exact masks."""
    monkeypatch.chdir(tmp_path)
    assert main(["sample", "demo", "--count", "6", "--size", "96"]) == 0
    assert (
        main(["predict", "demo/Images", "--model", "nailseg-b0", "--device=cpu", "--out=m", "--polygons"])
        == 0
    )
    content = json.loads(Path("m/polygons.json").read_text())
    assert {"images", "annotations", "categories"} <= content.keys()
    for image in content["images"]:
        assert {"id", "file_name", "width", "height"} <= image.keys()
    ids = {image["id"] for image in content["images"]}
    for entry in content["annotations"]:
        assert {"id", "image_id", "category_id", "segmentation", "area", "bbox", "iscrowd"} <= entry.keys()
        assert entry["image_id"] in ids
        assert all(isinstance(value, int | float) for ring in entry["segmentation"] for value in ring)
    if not content["annotations"]:
        pytest.fail("expected predicted nails")
    Path("demo/Images/polygons.json").write_text(Path("m/polygons.json").read_text())
    assert main(["import", "coco", "demo/Images", "back"]) == 0
    for mask in Path("back/Masks").rglob("*.png"):
        predicted = cv2.imread(str(Path("m") / mask.relative_to("back/Masks")), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(cv2.imread(str(mask), cv2.IMREAD_UNCHANGED), predicted)
