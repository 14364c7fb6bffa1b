"""Outlines compared with pycocotools' rasterizer and with values counted by hand."""

import csv
import io
import json
from pathlib import PurePath

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco

from nailseg.inference.polygons import describe_objects, to_coco, to_csv

A, M = PurePath("sub/a.jpg"), PurePath("sub/a.png")


def record_of(mask: np.ndarray, image: PurePath = A, name: PurePath = M) -> dict:
    probability = np.ones((int(mask.max()) + 1, *mask.shape), np.float32)
    return describe_objects(image, name, mask, probability) | {"uncertainty": 0.25}


def rasterize(record: dict, n_classes: int) -> np.ndarray:
    size = record["height"], record["width"]
    mask = np.zeros(size, np.uint8)
    for entry in record["objects"]:
        region = coco.decode(coco.frPyObjects(entry["segmentation"], *size)[0])
        assert region.sum() == entry["area"]
        assert coco.toBbox(coco.encode(np.asfortranarray(region))).tolist() == entry["bbox"]
        assert not mask[region > 0].any()
        mask[region > 0] = entry["category_id"]
    assert mask.max() < n_classes
    return mask


@pytest.mark.parametrize("seed", range(60))
def test_outlines_restore_the_mask(seed) -> None:
    rng = np.random.default_rng(seed)
    noise = rng.random(rng.integers(1, 40, 2)).astype(np.float32)
    if seed % 2:  # blobs with holes instead of pepper
        noise = cv2.GaussianBlur(noise, (5, 5), 0)
    mask = np.digitize(noise, np.quantile(noise, [0.3, 0.7])).astype(np.uint8)
    record = record_of(mask)
    assert (rasterize(record, 3) == mask).all()
    regions = sum(cv2.connectedComponents((mask == c).view(np.uint8), connectivity=8)[0] - 1 for c in (1, 2))
    assert len(record["objects"]) == regions


def test_object_counted_by_hand() -> None:
    mask = np.zeros((6, 8), np.uint8)
    mask[1:4, 2:7] = 1  # 15 pixels
    mask[2, 3] = 0  # a hole
    mask[4, 7] = 1  # touches by its corner
    probability = np.zeros((2, 6, 8), np.float32)
    probability[1] = 0.25
    probability[1, 4, 7] = 1
    (entry,) = describe_objects(A, M, mask, probability)["objects"]
    assert entry["area"] == 15
    assert entry["bbox"] == [2, 1, 6, 4]
    assert entry["score"] == pytest.approx((14 * 0.25 + 1) / 15, abs=1e-4)
    assert entry["category_id"] == 1
    square = np.zeros((6, 8), np.uint8)
    square[1:3, 2:5] = 1
    (ring,) = record_of(square)["objects"][0]["segmentation"]
    assert sorted(zip(ring[::2], ring[1::2], strict=True)) == [(2, 1), (2, 3), (5, 1), (5, 3)]


def test_coco_and_csv() -> None:
    mask = np.zeros((10, 12), np.uint8)
    mask[1:3, 1:4] = mask[5:7, 8:9] = 1
    mask[8:9, 0:5] = 2
    records = [record_of(mask * 0, PurePath("b.jpg"), PurePath("b.png")), record_of(mask)]
    names = ["background", "nail", "polish, red"]
    content = json.loads(to_coco(records, names))
    assert content["categories"] == [{"id": 1, "name": "nail"}, {"id": 2, "name": "polish, red"}]
    assert [image["file_name"] for image in content["images"]] == ["b.jpg", "sub/a.jpg"]
    assert {entry["image_id"] for entry in content["annotations"]} == {content["images"][1]["id"]}
    assert len({entry["id"] for entry in content["annotations"]}) == 3
    empty, row = csv.DictReader(io.StringIO(to_csv(records, names)))
    assert (empty["image"], empty["count_nail"], empty["area_nail"], empty["boxes_nail"]) == (
        "b.jpg",
        "0",
        "0",
        "",
    )
    assert row["uncertainty"] == "0.25"
    assert (row["width"], row["height"], row["count_nail"], row["area_nail"]) == ("12", "10", "2", "8")
    areas, boxes = row["areas_nail"].split(";"), row["boxes_nail"].split(";")
    assert set(zip(areas, boxes, strict=True)) == {("6", "1 1 3 2"), ("2", "8 5 1 2")}
    assert row["boxes_polish, red"] == "0 8 5 1"
