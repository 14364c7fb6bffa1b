"""Masks as lists of single objects: COCO polygons to correct in an annotation tool, and a table.

An object is a connected component (8 neighbours) of a class, as in instances.py. Its outline runs along the
edges of its pixels, so that COCO's own rasteriser (pycocotools) gives back the mask to the pixel. COCO's
polygons know no holes; a hole is cut out by a slit of no width (the ring goes from its first point to the
hole, around it, and back), which fills rightly under the even-odd rule, can be edited in annotation tools and
is read by `nailseg import coco`.
"""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from nailseg.metrics.instances import label_components

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import PurePath


def describe(
    picture: PurePath, name: PurePath, mask: np.ndarray, probability: np.ndarray | None = None
) -> dict[str, Any]:
    """What is in one image, ready for JSON.

    Args:
        picture: its relative path.
        name: its mask's relative path.
        mask: uint8 (H, W), class index.
        probability: float32 (C, H, W), 0..1; None if unknown: objects have no score then.

    Returns:
        image, mask (paths with forward slashes), width, height, and objects: each with its category_id (class
        index), segmentation, area (pixels), bbox (x, y, width, height) and score (mean probability).
    """
    objects: list[dict[str, Any]] = []
    for index in range(1, int(mask.max()) + 1):
        scores = None if probability is None else probability[index]
        objects.extend({"category_id": index, **entry} for entry in _objects(mask == index, scores))
    height, width = mask.shape
    paths = {"image": picture.as_posix(), "mask": name.as_posix()}
    return {**paths, "width": width, "height": height, "objects": objects}


def _objects(region: np.ndarray, probability: np.ndarray | None) -> list[dict[str, Any]]:
    left, top, width, height = cv2.boundingRect(region.view(np.uint8))
    box = slice(top, top + height), slice(left, left + width)
    region = region[box]
    labels, areas = label_components(region)
    if not len(areas):
        return []
    # at double size the contour's pixels tell which side of a pixel they lie on: (c + 1) // 2 is its edge
    double = region.view(np.uint8).repeat(2, 0).repeat(2, 1)
    contours, tree = cv2.findContours(double, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    rings = [_corners((contour[:, 0] + 1) // 2) for contour in contours]
    found = []
    for number in np.flatnonzero(tree[0][:, 3] < 0):  # the others are holes, and name it as their parent
        start, parts = rings[number][:1], [rings[number]]
        for hole in np.flatnonzero(tree[0][:, 3] == number):
            parts += [start, rings[hole], rings[hole][:1], start]
        outline = np.concatenate(parts) + np.array([left, top])
        x, y = contours[number][0, 0] // 2
        label = labels[y, x]
        (x, y), (right, bottom) = outline.min(0).tolist(), outline.max(0).tolist()
        entry = {"segmentation": [outline.ravel().tolist()], "area": int(areas[label - 1])}
        entry["bbox"] = [x, y, right - x, bottom - y]
        if probability is not None:
            inside = labels[y - top : bottom - top, x - left : right - left] == label
            entry["score"] = round(float(probability[y:bottom, x:right][inside].mean(dtype=np.float64)), 4)
        found.append(entry)
    return found


def _corners(ring: np.ndarray) -> np.ndarray:
    """Leaves out points that repeat the one before."""
    return ring[(ring != np.roll(ring, 1, axis=0)).any(1)]


def as_coco(records: Sequence[dict[str, Any]], class_names: Sequence[str]) -> str:
    """COCO instance annotations of what `describe` gives, as JSON; a category's id is its class index."""
    images, annotations = [], []
    for number, record in enumerate(records, start=1):
        size = {"width": record["width"], "height": record["height"]}
        images.append({"id": number, "file_name": record["image"], **size})
        for entry in record["objects"]:
            annotations.append({"id": len(annotations) + 1, "image_id": number, "iscrowd": 0, **entry})
    categories = [{"id": index, "name": name} for index, name in enumerate(class_names) if index]
    return json.dumps({"images": images, "annotations": annotations, "categories": categories})


def read_coco(text: str) -> dict[str, dict[str, Any]]:
    """The inverse of `as_coco`: records by image, without the mask's name.

    Raises:
        ValueError: it is no such list; or a KeyError or TypeError.
    """
    content = json.loads(text)
    names = {image["id"]: image["file_name"] for image in content["images"]}
    found = {
        image["file_name"]: {
            "image": image["file_name"], "width": image["width"], "height": image["height"], "objects": []
        }
        for image in content["images"]
    }  # fmt: skip
    for entry in content["annotations"]:
        own = {key: value for key, value in entry.items() if key not in ("id", "image_id", "iscrowd")}
        found[names[entry["image_id"]]]["objects"].append(own)
    return found


def as_table(records: Sequence[dict[str, Any]], class_names: Sequence[str]) -> str:
    """One row per image of what `describe` gives, as CSV.

    Columns: image, mask, width, height, and for each foreground class count, area (pixels of all), areas
    (pixels of each) and boxes (x y width height of each), in one order, parted by semicolons.
    """
    names = [f"{kind}_{name}" for name in class_names[1:] for kind in ("count", "area", "areas", "boxes")]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "mask", "width", "height", *names])
    for record in records:
        row = [record[key] for key in ("image", "mask", "width", "height")]
        for index in range(1, len(class_names)):
            entries = [entry for entry in record["objects"] if entry["category_id"] == index]
            areas = [entry["area"] for entry in entries]
            boxes = ";".join(" ".join(map(str, entry["bbox"])) for entry in entries)
            row += [len(entries), sum(areas), ";".join(map(str, areas)), boxes]
        writer.writerow(row)
    return text.getvalue()
