"""Reads the files of annotation tools: labelme, VIA (VGG Image Annotator) and CVAT, as COCO tables.

Every tool's shapes become polygons in pixels: boxes of 4 points, circles and ellipses of 72. Masks become run
lengths. Lines and points have no area; they are issues.
"""

import base64
import binascii
import io
import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
from PIL import Image

from nailseg.data.importers.base import Source
from nailseg.data.importers.coco import find_root, read_tables
from nailseg.data.io.images import read_bytes
from nailseg.errors import DataError

Region = list | dict | str
"""A COCO segmentation: polygons, run lengths, or the name of a shape that has no area."""


def read_annotations(kind: str, src: Path, skip_annotations: bool = False) -> Source:
    """Reads the files of a tool, `labelme`, `via` or `cvat`: one file, or all of a folder.

    labelme writes a JSON per image: polygons, rectangles, circles and masks. VIA's JSON is a project or its
    annotations; a region's class is its first attribute's value. "CVAT for images 1.1" is an annotations.xml
    with polygons, boxes, ellipses and masks.
    """
    pattern, parse, expected = TOOLS[kind]
    paths = [src] if src.is_file() else sorted(src.rglob(pattern))
    tables = []
    for path in paths:
        try:
            images = list(parse(read_bytes(path)))
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, ElementTree.ParseError):
            continue  # another JSON or XML file of the folder
        if images:
            tables.append((path, _to_tables(images)))
    if not tables:
        raise DataError(
            f"{src}: expected {expected}, found none in {len(paths)} files {pattern}. Export again."
        )
    return read_tables(find_root(src), tables, skip_annotations)


def _to_tables(images: list[dict]) -> dict[str, list[dict]]:
    """COCO's three tables; class names are their own ids."""
    numbered = list(enumerate(images))
    labels = [label | {"image_id": number} for number, image in numbered for label in image["labels"]]
    names = dict.fromkeys(label["category_id"] for label in labels)
    return {
        "images": [image | {"id": number} for number, image in numbered],
        "annotations": [label | {"id": number} for number, label in enumerate(labels)],
        "categories": [{"id": name, "name": name} for name in names],
    }


def _describe(name: str, height: Any, width: Any, labels: list[tuple[str, Region]]) -> dict[str, Any]:
    parts = [part for part in PurePosixPath(name.replace("\\", "/")).parts if part not in ("..", ".", "/")]
    entries = [{"category_id": str(label), "segmentation": region} for label, region in labels]
    size = {"height": height and int(height), "width": width and int(width)}
    return {"file_name": str(PurePosixPath(*parts)), **size, "labels": entries}


def _parse_labelme(data: bytes) -> Iterator[dict]:
    content = json.loads(data)
    height, width = content.get("imageHeight"), content.get("imageWidth")
    labels = [(shape["label"], _labelme_region(shape, height, width)) for shape in content["shapes"]]
    # relative to the JSON where it was written; the image may lie elsewhere by now
    yield _describe(PureWindowsPath(content["imagePath"]).name, height, width, labels)


def _labelme_region(shape: dict, height: int, width: int) -> Region:
    kind, points = shape.get("shape_type") or "polygon", shape["points"]
    if kind == "rectangle":
        return _box(*points[0], *points[1])
    if kind == "circle":
        radius = float(np.hypot(*np.subtract(points[0], points[1])))
        return _ellipse(*points[0], radius, radius)
    if kind == "mask":
        (left, top), _ = points
        try:
            with Image.open(io.BytesIO(base64.b64decode(shape["mask"]))) as image:
                inside = np.array(image) > 0
        except (OSError, binascii.Error):
            return "a damaged mask"
        return _run_lengths(inside, round(top), round(left), height, width)
    return [[float(value) for point in points for value in point]] if kind == "polygon" else str(kind)


def _parse_via(data: bytes) -> Iterator[dict]:
    content = json.loads(data)
    for entry in content.get("_via_img_metadata", content).values():
        regions = entry["regions"]
        labels = []
        for region in regions.values() if isinstance(regions, dict) else regions:
            value = next(iter(region["region_attributes"].values()), "object")
            chosen = [name for name, is_on in value.items() if is_on] if isinstance(value, dict) else [value]
            labels.append((chosen[0] if chosen else "object", _via_region(region["shape_attributes"])))
        yield _describe(entry["filename"], None, None, labels)


def _via_region(shape: dict) -> Region:
    if shape["name"] == "polygon":
        points = zip(shape["all_points_x"], shape["all_points_y"], strict=True)
        return [[float(value) for point in points for value in point]]
    if shape["name"] == "rect":
        return _box(shape["x"], shape["y"], shape["x"] + shape["width"], shape["y"] + shape["height"])
    if shape["name"] in ("circle", "ellipse"):
        rx, ry = shape.get("rx", shape.get("r")), shape.get("ry", shape.get("r"))
        return _ellipse(shape["cx"], shape["cy"], rx, ry, shape.get("theta", 0))
    return str(shape["name"])


def _parse_cvat(data: bytes) -> Iterator[dict]:
    for image in ElementTree.fromstring(data).iter("image"):
        height, width = int(image.get("height")), int(image.get("width"))
        shapes = [shape for shape in image if shape.get("label")]
        labels = [(shape.get("label"), _cvat_region(shape, height, width)) for shape in shapes]
        yield _describe(image.get("name"), height, width, labels)


def _cvat_region(shape: ElementTree.Element, height: int, width: int) -> Region:
    def numbers(*names: str) -> list[float]:
        return [float(shape.get(name)) for name in names]

    if shape.tag == "polygon":
        return [[float(value) for value in shape.get("points").replace(";", ",").split(",")]]
    if shape.tag == "box":
        return _box(*numbers("xtl", "ytl", "xbr", "ybr"))
    if shape.tag == "ellipse":
        return _ellipse(*numbers("cx", "cy", "rx", "ry"))
    if shape.tag == "mask":
        top, left, rows, columns = (int(shape.get(name)) for name in ("top", "left", "height", "width"))
        runs = [int(run) for run in shape.get("rle").split(",")]
        inside = np.repeat(np.arange(len(runs)) % 2, runs).reshape(rows, columns) > 0
        return _run_lengths(inside, top, left, height, width)
    return shape.tag


def _box(left: float, top: float, right: float, bottom: float) -> Region:
    return [[left, top, right, top, right, bottom, left, bottom]]


def _ellipse(x: float, y: float, rx: float, ry: float, angle: float = 0) -> Region:
    turn = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    points = complex(x, y) + (rx * np.cos(turn) + 1j * ry * np.sin(turn)) * np.exp(1j * angle)
    return [points.view(float).tolist()]


def _run_lengths(inside: np.ndarray, top: int, left: int, height: int, width: int) -> Region:
    """COCO's run lengths of a crop, bool (h, w), within an image."""
    mask = np.zeros((height, width), bool)
    mask[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    edges = np.flatnonzero(np.diff(mask.T.ravel(), prepend=False))
    return {"size": [height, width], "counts": np.diff([0, *edges, mask.size]).tolist()}


TOOLS: dict[str, tuple[str, Callable[[bytes], Iterator[dict]], str]] = {
    "labelme": ("*.json", _parse_labelme, "labelme's JSON files (shapes, imagePath)"),
    "via": ("*.json", _parse_via, "via's JSON (filename, regions)"),
    "cvat": ("*.xml", _parse_cvat, "cvat's annotations.xml (CVAT for images 1.1)"),
}
"""Tool -> pattern of its files, parser of one, and what errors say was expected."""
