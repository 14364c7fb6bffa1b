"""Lists the objects of masks: COCO polygons for annotation tools, and a CSV table.

An object is a connected component (8 neighbours) of a class, as in `metrics.instances`. Its outline follows
the edges of its pixels, so that COCO's own rasterizer (pycocotools) restores the mask exactly. COCO polygons
cannot have holes; a hole is connected by a slit of zero width (the ring runs from its first point to the
hole, around it, and back), which the even-odd rule fills correctly.
"""

import json
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

import cv2
import numpy as np

from nailseg.metrics.instances import label_components


def describe_objects(
    image_path: PurePath, mask_path: PurePath, mask: np.ndarray, probability: np.ndarray
) -> dict[str, Any]:
    """Lists the objects of one image as a JSON-serialisable record.

    Args:
        image_path: Relative path of the image.
        mask_path: Relative path of its mask.
        mask: uint8 (H, W), class index.
        probability: float32 (C, H, W), 0..1.

    Returns:
        image, mask (paths with forward slashes), width, height, and objects: each with its category_id (class
        index), segmentation, area (pixels), bbox (x, y, width, height) and score (mean probability).
    """
    objects = [
        {"category_id": index, **entry}
        for index in range(1, int(mask.max()) + 1)
        for entry in _find_objects(mask == index, probability[index])
    ]
    paths = {"image": image_path.as_posix(), "mask": mask_path.as_posix()}
    return {**paths, "width": mask.shape[1], "height": mask.shape[0], "objects": objects}


def _find_objects(region: np.ndarray, probability: np.ndarray) -> list[dict[str, Any]]:
    left, top, width, height = cv2.boundingRect(region.view(np.uint8))
    part = slice(top, top + height), slice(left, left + width)
    region, probability = region[part], probability[part]
    labels, areas = label_components(region)
    if not len(areas):
        return []
    # in an image of double size, (c + 1) // 2 of a contour pixel is the pixel edge that it lies at
    double = region.view(np.uint8).repeat(2, 0).repeat(2, 1)
    contours, (hierarchy,) = cv2.findContours(double, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    rings = [(contour[:, 0] + 1) // 2 for contour in contours]
    rings = [ring[(ring != np.roll(ring, 1, axis=0)).any(1)] for ring in rings]  # no repeated points
    parents = hierarchy[:, 3]
    objects = []
    for number in np.flatnonzero(parents < 0):  # outer contours; a hole has its outer contour as parent
        start, parts = rings[number][:1], [rings[number]]
        for hole in np.flatnonzero(parents == number):
            parts += [start, rings[hole], rings[hole][:1], start]
        outline = np.concatenate(parts)
        (x, y), (right, bottom) = outline.min(0).tolist(), outline.max(0).tolist()
        column, row = contours[number][0, 0] // 2
        label = labels[row, column]
        inside = labels[y:bottom, x:right] == label
        score = probability[y:bottom, x:right][inside].mean(dtype=np.float64)
        segmentation = [(outline + np.array([left, top])).ravel().tolist()]
        box = [left + x, top + y, right - x, bottom - y]
        facts = {"area": int(areas[label - 1]), "bbox": box, "score": round(float(score), 4)}
        objects.append({"segmentation": segmentation, **facts})
    return objects


def to_coco(records: Sequence[dict[str, Any]], class_names: Sequence[str]) -> str:
    """Formats records of `describe_objects` as COCO instance annotations (JSON); category ids are indices."""
    images, annotations = [], []
    for number, record in enumerate(records, start=1):
        size = {"width": record["width"], "height": record["height"]}
        images.append({"id": number, "file_name": record["image"], **size})
        for entry in record["objects"]:
            annotations.append({"id": len(annotations) + 1, "image_id": number, "iscrowd": 0, **entry})
    categories = [{"id": index, "name": name} for index, name in enumerate(class_names) if index]
    return json.dumps({"images": images, "annotations": annotations, "categories": categories})


def to_csv(records: Sequence[dict[str, Any]], class_names: Sequence[str]) -> str:
    """Formats records of `describe_objects` as CSV: a row per image with image, mask, width, height and
    uncertainty (`Result.uncertainty`, which the caller adds).

    For each foreground class follow count, area (total pixels), areas (pixels of each object) and boxes (x y
    width height of each object); lists are separated by semicolons.
    """
    import pandas as pd  # half a second: imported only where a table is written

    columns = ["image", "mask", "width", "height", "uncertainty"]
    rows = []
    for record in records:
        row = [record[column] for column in columns]
        for index in range(1, len(class_names)):
            entries = [entry for entry in record["objects"] if entry["category_id"] == index]
            areas = [entry["area"] for entry in entries]
            boxes = ";".join(" ".join(map(str, entry["bbox"])) for entry in entries)
            row += [len(entries), sum(areas), ";".join(map(str, areas)), boxes]
        rows.append(row)
    columns += [f"{kind}_{name}" for name in class_names[1:] for kind in ("count", "area", "areas", "boxes")]
    return pd.DataFrame(rows, columns=columns).to_csv(index=False, lineterminator="\n")
